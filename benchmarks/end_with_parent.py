"""Runs a reference that is not Celery so that it ends with the benchmark process.

`python -m benchmarks.end_with_parent PARENT MODULE ARGS…` asks the kernel for TERM when process PARENT dies, then
runs MODULE.
"""

from __future__ import annotations

import runpy
import sys

from workers.local.parent_death import end_on_parent_death


def main() -> None:
    end_on_parent_death(int(sys.argv[1]))
    module, sys.argv = sys.argv[2], sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
