"""One client of the bound where there is no pgbench: waits for a word, then sends its transactions one after the other."""

from __future__ import annotations

import sys
import time

import psycopg


def main(url: str, first: int, transactions: int, size: int) -> None:
    """Print "ready", wait for a line, cancel the sets, print the seconds."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as conn:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        for number in range(transactions):
            ids = list(range(first + number * size, first + (number + 1) * size))
            conn.execute("SELECT bench.cancel_orders(%s, 'psycopg')", [ids])
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
