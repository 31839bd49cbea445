"""Which cells do several measures share?  One way of cancelling each: sets, single messages, the bound, the bare task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from benchmarks import bound, load, writes
from benchmarks.load import Slices
from benchmarks.market import BLOCK, Market, build
from benchmarks.place import Place

OURS, BARE = 0, 2
"""Databases of the broker; the next number holds the answers."""


@dataclass
class Cells:
    """A market of matured alerts, with workers waiting, whose orders are cancelled range by range."""

    place: Place
    database: str
    market: Market
    conn: psycopg.Connection
    slices: Slices
    runs: int = 0

    def in_sets(self, count: int) -> float:
        """Orders per second through `orders.cancel_many`, a hundred a message, up to the last message's kept answer."""
        first, last = self.slices.take(count)
        run = self._run("many")
        jobs = [
            (f"{run}{number}", {"orders": [self._order(order_id) for order_id in range(start, start + BLOCK)]})
            for number, start in enumerate(range(first, last + 1, BLOCK))
        ]
        load.publish(self.place, "commands", "orders.cancel_many", jobs)
        spent = load.seconds(self.place, self.conn, "commands", OURS, *load.answered(run, len(jobs)))
        return self._checked(first, last) / spent

    def one_by_one(self, count: int) -> float:
        """Orders per second through `orders.cancel`, one a message; neighbours in the queue are of different stores."""
        first, last = self.slices.take(count)
        run = self._run("one")
        jobs = [(f"{run}{order_id}", self._order(order_id)) for order_id in _shuffled(first, last)]
        load.publish(self.place, "commands", "orders.cancel", jobs)
        return (
            count
            / load.seconds(self.place, self.conn, "commands", OURS, *load.cancelled(first, last))
            * self._whole(first, last)
        )

    def bound(self, count: int) -> float:
        """Orders per second by pgbench, a hundred a transaction."""
        first, last = self.slices.take(count)
        rate = bound.orders_per_second(self.place, self.database, first, count)
        return rate * self._whole(first, last)

    def bare(self, count: int) -> float:
        """Orders per second by the bare Celery task, one a message."""
        first, last = self.slices.take(count)
        jobs = [(f"{self._run('bare')}{order_id}", {"order_id": order_id}) for order_id in _shuffled(first, last)]
        load.publish(self.place, "bare", "bare.cancel", jobs)
        return (
            count
            / load.seconds(self.place, self.conn, "bare", BARE, *load.cancelled(first, last))
            * self._whole(first, last)
        )

    def _order(self, order_id: int) -> dict[str, object]:
        return {"order_id": order_id, "member_id": f"s-{(order_id - 1) // BLOCK % self.market.sellers}"}

    def _run(self, kind: str) -> str:
        self.runs += 1
        return f"{kind}.{self.runs}."

    def _whole(self, first: int, last: int) -> int:
        """1, or WrongWork: the counts of every table are looked at after every cell."""
        writes.check(self.conn, first, last, self.market.lines)
        return 1

    def _checked(self, first: int, last: int) -> int:
        return self._whole(first, last) * (last - first + 1)


def _shuffled(first: int, last: int) -> list[int]:
    """The range in strides of a block, so that two processes do not wait for one store."""
    return [order_id for offset in range(BLOCK) for order_id in range(first + offset, last + 1, BLOCK)]


@contextmanager
def cancelling(place: Place, orders: int, *, ours: int = 2, bare: int = 0, database: str = "cancel") -> Iterator[Cells]:
    """A market with `orders` matured alerts of five lines; `ours` and `bare` processes wait for work."""
    market = Market(orders)
    place.create(database)
    with ExitStack() as stack:
        conn = stack.enter_context(place.connect(database))
        build(conn, market)
        writes.install(conn)
        settings = place.settings(database, broker=OURS)
        if ours:
            stack.enter_context(place.workers(settings, "commands", processes=ours))
        if bare:
            place.settings(database, broker=BARE)  # empties its two databases
            environment = {
                "BARE_BROKER": place.broker(BARE),
                "BARE_BACKEND": place.broker(BARE + 1),
                "BARE_DATABASE": place.plain(database),
            }
            program = place.celery("bare", "benchmarks.bare_celery", environment, "-Q", "bare", "-c", str(bare))
            stack.enter_context(place.programs([program]))
        yield Cells(place, database, market, conn, Slices(orders))
    place.drop(database)
