"""One client that sends prepared statements through psycopg, where pgbench is missing."""

from __future__ import annotations

import re
import sys
import time

import psycopg


def main(url: str, statement: str, first: int, transactions: int, size: int) -> None:
    """Print "ready", wait for a line, send the statement for each batch, print the seconds."""
    query = re.sub(r"(?<!:):(first|size)\b", r"%(\1)s", statement).encode()
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as conn:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        for number in range(transactions):
            conn.execute(query, {"first": first + number * size, "size": size})
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
