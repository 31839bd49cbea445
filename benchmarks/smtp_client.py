"""A bare smtplib loop that sends finished messages over one connection.

`python -m benchmarks.smtp_client PORT FILE` reads the messages, prints "ready", waits for a line, sends them, and
prints the seconds.
"""

from __future__ import annotations

import json
import smtplib
import sys
import time
from pathlib import Path


def main(port: int, file: Path) -> None:
    messages = [(to, text.encode()) for to, text in json.loads(file.read_text())]
    with smtplib.SMTP("127.0.0.1", port) as server:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        for recipient, message in messages:
            server.sendmail("no-reply@market.example", [recipient], message)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
