"""B15: time to import the application, and time of `./run up` from nothing to ready.

The only absolute bar.  Every round has a fresh data directory, so `up` creates the servers and the schema; only the
Python environment exists already.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from workers.settings import CHECKOUT

IMPORT = "import time; began = time.perf_counter(); import workers.app; print(time.perf_counter() - began)"


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    runs = iter(range(100))
    imports, ups = alternate(
        scale.pairs,
        with_progress(step, "import workers.app", imported),
        with_progress(step, "./run up", lambda: up(environment.folder / f"up-{next(runs)}")),
    )
    rounds = [
        ("B15 import", "import time of workers.app", Bar(1.0, 0.6, at_least=False, unit=" s"), imports),
        ("B15 up", "`./run up` to ready", Bar(6, 4, at_least=False, unit=" s"), ups),
    ]
    return [result(name, what, "s", bar, seconds_, [], seconds_) for name, what, bar, seconds_ in rounds]


def imported() -> float:
    """Return the seconds of the import in a fresh interpreter, without the interpreter itself."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True, env=_environment(None)
    )
    return float(done.stdout)


def up(data: Path) -> float:
    """Return the seconds of `./run up --detach`, which returns when everything is ready."""
    command = [sys.executable, str(CHECKOUT / "run")]
    began = time.perf_counter()
    try:
        subprocess.run([*command, "up", "--detach"], capture_output=True, check=True, env=_environment(data))
        return time.perf_counter() - began
    finally:
        subprocess.run([*command, "down"], capture_output=True, check=False, env=_environment(data))
        shutil.rmtree(data, ignore_errors=True)


def _environment(data: Path | None) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("UNWIND_")}
    variables |= {"PYTHONPATH": str(CHECKOUT), "UNWIND_VENV": sys.prefix}
    return variables | ({"UNWIND_DATA": str(data)} if data is not None else {})


BENCH = Bench("B15", "import and start", lambda s: 2 * s.pairs, {"quick": 15, "normal": 75}, run)
