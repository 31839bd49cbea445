"""The upper limit: pgbench with two clients and prepared statements.

pgbench comes with the embedded PostgreSQL.  Where it is missing, two processes send the same prepared statements
through psycopg, which is a little slower; the note of the result names the driver.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.environment import Environment
from workers.embedded.binaries import find_postgres_bin

CLIENTS = 2
BY_BATCHES = (
    "SELECT bench.cancel_orders(ARRAY(SELECT generate_series(CAST(:first AS bigint), "
    "CAST(:first AS bigint) + :size - 1)), 'bound')"
)
"""`size` neighbouring orders from `first` on, one transaction."""


def driver() -> str:
    """Return the path of pgbench, or "psycopg"."""
    for path in (str(find_postgres_bin() / "pgbench"), shutil.which("pgbench")):
        if path and Path(path).is_file():
            return path
    return "psycopg"


def driver_name() -> str:
    return f"driven by {Path(driver()).name}, {CLIENTS} clients"


def per_second(environment: Environment, database: str, statement: str, first: int, count: int, size: int = 1) -> float:
    """Return orders per second of a statement that takes `size` orders from `:first` on, without connecting."""
    transactions = count // size // CLIENTS
    if transactions * size * CLIENTS != count:
        raise ValueError(f"{count} orders do not divide into batches of {size} for {CLIENTS} clients")
    program = driver()
    if program == "psycopg":
        return _by_psycopg(environment, database, statement, first, transactions, size)
    script = environment.folder / "bound.sql"
    script.write_text(f"\\set i :i + 1\n\\set first :start + (:client_id * :per + :i) * :size\n{statement}\n")
    words = [program, "--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", f"--jobs={CLIENTS}"]
    words += [f"--transactions={transactions}", f"--file={script}", f"--define=start={first}", f"--define=size={size}"]
    words += [f"--define=per={transactions}", "--define=i=-1", environment.plain(database)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    rate = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or rate is None:
        raise RuntimeError(f"pgbench: {done.stderr or done.stdout}")
    return float(rate.group(1)) * size


def _by_psycopg(
    environment: Environment, database: str, statement: str, first: int, transactions: int, size: int
) -> float:
    words = [sys.executable, "-m", "benchmarks.pgbench_substitute", environment.plain(database), statement]
    clients = [
        subprocess.Popen(
            [*words, str(first + number * transactions * size), str(transactions), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(CLIENTS)
    ]
    for client in clients:
        assert client.stdout is not None
        client.stdout.readline()
    spent = [float(client.communicate("go\n")[0]) for client in clients]
    return transactions * size * CLIENTS / max(spent)
