"""A process wired like a worker that runs the relay or sends bare messages through the same connection.

Reads a line, executes it, prints a JSON line: `relay` until no outbox row is left to publish, `send N` for N bare
messages.
"""

from __future__ import annotations

import json
import sys
import time

from schedules.routes import queue_of
from workers import lifecycle
from workers.app import app


def main() -> None:
    lifecycle.connect_process()
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, count = line.partition(" ")
        began = time.perf_counter()
        done = relay() if word.strip() == "relay" else send(int(count))
        print(json.dumps({"done": done, "seconds": time.perf_counter() - began}), flush=True)
    lifecycle.disconnect_process()


def relay() -> int:
    total = 0
    while published := app.tasks["outbox.relay"].run()["published"]:
        total += published
    return total


def send(count: int) -> int:
    for _ in range(count):
        app.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True, expires=30)
    return count


if __name__ == "__main__":
    main()
