"""A market for races: commands of several processes that one barrier releases, and what must hold after the rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from models.outbox import OutboxRow
from tests.e2e.concurrency import ConcurrentProcesses
from tests.e2e.history_checks import check_orders, units_out_of_balance
from tests.plugins.market import Market, lot_facts, run_in_batch
from tests.plugins.stored_rows import DatabaseRows
from workers.simulation.engine import Simulation

DAY = timedelta(days=1)
Answer = dict[str, Any]
Ends = dict[tuple[str, ...], str]
"""In which status the order ends, by the two answers; any other pair of answers is wrong."""


@pytest.fixture(scope="module")
def race_processes() -> Iterator[ConcurrentProcesses]:
    with ConcurrentProcesses(3) as standing:
        yield standing


class RaceMarket:
    def __init__(self, simulation: Simulation, database_url: str, processes: ConcurrentProcesses) -> None:
        self.simulation, self.processes = simulation, processes.at(database_url)
        self.present = DatabaseRows(database_url).server_time().replace(microsecond=0)
        self._batches: dict[tuple[datetime, str], list[Answer]] | None = None
        self.days_ago(30)
        self.market = Market(simulation)
        self.lot = self.market.lot(quantity=1_000_000)

    def days_ago(self, days: int) -> RaceMarket:
        self.simulation.clock.instant = self.present - days * DAY
        return self

    def prepare(self, rounds: Iterable[int]) -> Iterator[int]:
        """Yield the rounds and collect the commands of the loop; at its end, run those of one task and time together.

        The batches run in the order of their first commands.  Single transactions for what precedes a race would take
        longer than the race.
        """
        self._batches = {}
        yield from rounds
        batches, self._batches = self._batches, None
        for (instant, name), batch in batches.items():
            self.simulation.clock.instant = instant
            run_in_batch(name, batch)

    def do(self, task: str, **arguments: Any) -> None:
        """Run a command that must succeed, at once or at the end of the loop over `prepare`."""
        if self._batches is not None:
            self._batches.setdefault((self.simulation.clock.instant, task), []).append(arguments)
            return
        answer = self.simulation.do(task, **arguments)
        assert answer["outcome"] == "done", (task, answer)

    def record_lot(self, lot_id: int, **fields: Any) -> int:
        self.days_ago(30).do("inventory.record_lot", lot=lot_facts(lot_id, **fields))
        return lot_id

    def order(self, number: int, *, lot: int | None = None, quantity: int = 5, **who: str) -> int:
        buyer = who.get("buyer", f"buyer-{number}")
        self.days_ago(30)
        self.do("members.record", member_id=buyer, handle=buyer, email=f"{buyer}@example.org")
        lines = [{"lot_id": self.lot if lot is None else lot, "quantity": quantity}]
        seller = who.get("seller", "seller")
        self.do("orders.submit", order_id=number, buyer_id=buyer, seller_id=seller, lines=lines)
        return number

    def npb(self, number: int, *, days_ago: int, accepted: bool = False) -> None:
        self.days_ago(days_ago).do("npb.file", order_id=number, member_id="seller")
        if accepted:
            self.do("npb.accept_penalty", order_id=number, member_id=f"buyer-{number}")

    def ocr(self, number: int, by: str) -> None:
        reason = "S_MUTUAL" if by.startswith("seller") else "B_MUTUAL"
        self.days_ago(5).do("ocr.file", order_id=number, member_id=by, reason=reason, comment="we spoke")

    def finish(self) -> None:
        self.simulation.clock.instant = self.market.server_time()
        self.simulation.process_outbox()
        check_orders(self.market)
        assert units_out_of_balance(self.market) == {}
        assert not self.market.outbox(OutboxRow.state != "done")

    def status(self, number: int) -> str:
        return self.market.status(number)


@pytest.fixture
def race_market(simulation: Simulation, database_url: str, race_processes: ConcurrentProcesses) -> RaceMarket:
    return RaceMarket(simulation, database_url, race_processes)


def codes(answers: list[Answer]) -> tuple[str, ...]:
    return tuple("done" if a["outcome"] == "done" else str(a["code"] or a["outcome"]) for a in answers)
