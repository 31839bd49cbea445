"""PgBouncer before a PostgreSQL server, where Debian's program is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url

from workers.embedded.data_dir import free_port
from workers.embedded.processes import wait_until
from workers.embedded.run_as import choose_run_as, chown_tree

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextlib.contextmanager
def pooler(server_url: str, **settings: str) -> Iterator[str]:
    """A pooler before all databases of that server, with two server processes for each; yields its URL.

    Every client acts as the login of `server_url`.
    """
    assert PGBOUNCER is not None
    url, port = make_url(server_url), free_port()
    options = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": "2",
        "ignore_startup_parameters": "options",
        **settings,
    }
    with tempfile.TemporaryDirectory(prefix="pooler-", dir="/tmp") as name:
        folder = Path(name)
        lines = [f"{key} = {value}" for key, value in options.items()]
        password = (url.password or "").replace("'", "''")
        (folder / "ini").write_text(
            f"[databases]\n* = host={url.host} port={url.port} user={url.username} password='{password}'\n"
            "[pgbouncer]\n" + "\n".join(lines) + f"\nlogfile = {folder}/log\n"
        )
        identity = choose_run_as(folder)
        chown_tree(folder, identity)
        process = subprocess.Popen(
            [PGBOUNCER, "-q", str(folder / "ini")],
            stderr=subprocess.DEVNULL,
            preexec_fn=identity.becoming(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - it refuses to be root
        )
        try:
            assert wait_until(lambda: _accepts(port), 30), (folder / "log").read_text()
            yield url.set(host="127.0.0.1", port=port, password=None).render_as_string()
        finally:
            process.kill()  # SIGTERM waits for its clients
            process.wait(30)


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
