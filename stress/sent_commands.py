"""The producers' record of sent commands and received answers, which no worker sees."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Sent:
    """A request as its sender knows it.  `answer` is the first one, from any source."""

    request_id: str
    task: str
    arguments: dict[str, Any]
    interface: str
    at: float
    """Monotonic seconds of the last sending."""
    times: int = 0
    answer: dict[str, Any] | None = None
    later: list[dict[str, Any]] = field(default_factory=list)
    """Answers to its copies and repeats after the first answer."""
    part_of: str | None = None
    """The request that carried this one (an item of `orders.cancel_many`)."""


@dataclass
class Ledger:
    """All requests of a run, by id, and counters."""

    sent: dict[str, Sent] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    outstanding: dict[str, Sent] = field(default_factory=dict)

    def add(self, sent: Sent, *, waits: bool = True) -> None:
        with self.lock:
            self.sent[sent.request_id] = sent
            self.counts["commands"] += 1
            if waits:
                self.outstanding[sent.request_id] = sent

    def count(self, counter: str, times: int = 1) -> None:
        with self.lock:
            self.counts[counter] += times

    def answered(self, sent: Sent, answer: dict[str, Any]) -> None:
        with self.lock:
            if sent.answer is not None:
                sent.later.append(answer)
                return
            sent.answer = answer
            self.counts["answered"] += 1
            self.outstanding.pop(sent.request_id, None)

    def waiting(self) -> list[Sent]:
        with self.lock:
            return list(self.outstanding.values())
