"""A command in another terminal that uses the embedded servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.embedded.client import RunningServers, running_servers
from workers.embedded.processes import ProcessIdentity

CHECKOUT = Path(__file__).resolve().parents[3]

# Uses the servers, prints their addresses, and waits for its end.
USER = """
import os, signal, sys
from pathlib import Path
from workers.embedded.client import embedded_servers
from workers.embedded.run_as import RunAs
if sys.argv[3] != "0":  # with root's access to folders: this interpreter may be below /root
    RunAs(int(sys.argv[3]), int(sys.argv[3])).becoming(os.getppid(), signal.SIGTERM)()
with embedded_servers(Path(sys.argv[1]), durable=sys.argv[2] == "durable") as urls:
    print(urls.database_url, urls.broker_url, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_client(data: Path, kind: str = "throwaway", uid: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(data), kind, str(uid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().split()[0]
    finally:
        if process.poll() is None:
            process.stdin.write("\n")
            process.stdin.close()
        process.wait(30)
        process.stdout.close()
        if not process.stdin.closed:
            process.stdin.close()


def running(data: Path) -> RunningServers:
    running_pair = running_servers(data)
    assert running_pair is not None
    return running_pair


def marks(running_pair: RunningServers) -> list[ProcessIdentity]:
    return [running_pair.daemon, running_pair.postgres, running_pair.valkey]
