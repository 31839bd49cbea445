"""Short scenarios on a simulated market that expose a mutant; the comparisons find what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from models import notices
from models.db import database as db
from models.notices import ClaimedNoticeOutcome
from policies.notices import DELIVERY_LEASE
from stress import mutants, plan
from stress.db_checks import open_connection
from stress.simulated_market import SimulatedMarket

Scenario = Callable[[SimulatedMarket], None]


def order_life(market: SimulatedMarket) -> None:
    order_id = market.buy(requested=True)
    market.do("orders.cancel", order_id=order_id, member_id="s0")
    market.simulation.process_outbox()


def duplicate_request(market: SimulatedMarket) -> None:
    """Two workers read the same message before either has answered it."""
    order_id = market.buy(requested=True)
    market.send("t-twin", "orders.cancel", {"order_id": order_id, "member_id": "s0"})
    market.process_concurrently("t-twin", "t-twin", order_id=order_id)
    market.simulation.process_outbox()


def repeated_outbox_messages(market: SimulatedMarket) -> None:
    """Outbox messages that are done arrive again."""
    order_life(market)
    with open_connection(market.database_url) as conn:
        conn.execute("UPDATE unwind.outbox SET state = 'due', due_at = created_at")
    market.simulation.process_outbox()


def transaction_left_open(market: SimulatedMarket) -> None:
    """A worker stalls while sending an email; another sends it; the first then reports a failure."""
    market.buy(requested=True)
    with market.simulation.database.transaction() as conn:
        conn.exec_driver_sql(
            "UPDATE unwind.notices SET state = 'pending', attempts = 0, sent_at = NULL, next_try_at = created_at"
        )
        instant = market.simulation.clock.instant
        stalled_claim = notices.claim_notices(conn, instant, until=instant + DELIVERY_LEASE, limit=1)
        instant += DELIVERY_LEASE + timedelta(seconds=1)
        second_claim = notices.claim_notices(conn, instant, until=instant + DELIVERY_LEASE, limit=1)
        sent_outcomes = [ClaimedNoticeOutcome(notice, "sent") for notice in second_claim]
        late_outcomes = [
            ClaimedNoticeOutcome(notice, "pending", error="too late", next_try_at=instant) for notice in stalled_claim
        ]
        # The second outcome stands for a worker that died after it sent the email.
        notices.record_notice_deliveries(conn, late_outcomes, instant)
        claimable = notices.claim_notices(conn, instant, until=instant + DELIVERY_LEASE, limit=1)
        notices.record_notice_deliveries(conn, sent_outcomes, instant)
    market.recorded_violations += [f"email {notice.notice_id} was sent and is to be sent again" for notice in claimable]


def two_clocks(market: SimulatedMarket) -> None:
    """One worker's clock is half an hour ahead of the database's."""
    order_id = market.buy()
    market.simulation.database.clock = db.DatabaseClock()
    market.do("npb.file", order_id=order_id, member_id="s0")
    mutants.ahead = timedelta(minutes=30)
    market.do("orders.cancel", order_id=order_id, member_id="s0")
    mutants.ahead = timedelta(0)


def on_the_second(market: SimulatedMarket) -> None:
    """Cancel at the exact second at which it becomes possible (R41)."""
    order_id = market.buy()
    market.do("npb.file", order_id=order_id, member_id="s0")
    market.advance(plan.UNLOCK)
    market.do("orders.cancel", order_id=order_id, member_id="s0")
    market.simulation.process_outbox()


def dies_at_its_commit(market: SimulatedMarket) -> None:
    """The session ends at the commit of a cancellation, and nobody repeats the command."""
    order_id = market.buy(requested=True)
    with market.kill_next_commit():
        market.do("orders.cancel", order_id=order_id, member_id="s0")
    market.simulation.process_outbox()


def publishes_once(market: SimulatedMarket) -> None:
    order_id = market.buy(requested=True)
    with market.publishing():
        market.do("orders.cancel", order_id=order_id, member_id="s0")


def republishes_lost_messages(market: SimulatedMarket) -> None:
    """The broker loses the first messages."""
    order_id = market.buy(requested=True)
    with market.publishing(lost=4):
        market.do("orders.cancel", order_id=order_id, member_id="s0")


def foreign_member(market: SimulatedMarket) -> None:
    order_id = market.buy(requested=True)
    market.do("orders.cancel", order_id=order_id, member_id=plan.STRANGER)
    market.simulation.process_outbox()


def automated_orders(market: SimulatedMarket) -> None:
    """Nothing happens by itself: one order is new, one on hold, and the buyer of one is excluded."""
    market.buy(seller=plan.AUTOMATED)
    held = market.buy(seller=plan.AUTOMATED)
    market.do("orders.hold_automation", order_id=held, staff="kim", comment="The buyer is in hospital.")
    excluded = market.buy(seller=plan.AUTOMATED, buyer=plan.AUTOMATION["exclude_buyers"][0])
    for order_id in (held, excluded):
        market.do("npb.file", order_id=order_id, member_id=plan.AUTOMATED)
    market.advance(plan.UNLOCK_ANSWERED)


SIMULATED_SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        order_life,
        duplicate_request,
        repeated_outbox_messages,
        transaction_left_open,
        two_clocks,
        on_the_second,
        dies_at_its_commit,
        publishes_once,
        republishes_lost_messages,
        foreign_member,
        automated_orders,
    )
}
