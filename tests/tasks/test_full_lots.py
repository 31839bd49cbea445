"""What happens when a lot cannot hold what comes back?  Nothing of that cancellation, and staff finds it (C25)."""

from __future__ import annotations

from typing import Any

from tests.plugins.market import Market

FULL = 2**31 - 1


def doomed(market: Market, order_id: int, lot_id: int) -> dict[str, Any]:
    """An order of ten that its seller may cancel; gives the command."""
    market.order(order_id, [(lot_id, 10)])
    market.done("ocr.file", order_id=order_id, member_id="seller", reason="S_MUTUAL", comment="Agreed.")
    return {"order_id": order_id, "member_id": "seller"}


def tables(market: Market) -> list[Any]:
    names = ("orders", "order_lines", "lots", "stock_moves", "events", "outbox", "ocrs", "strikes")
    known = {r.tablename for r in market.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'unwind'")}
    return [market.rows(f"SELECT * FROM unwind.{name} ORDER BY 1, 2") for name in names if name in known]  # noqa: S608


def test_nothing_of_the_cancellation_is_written_and_staff_finds_it(market: Market) -> None:
    """C25: asked again it waits there once, and once there is room it can be done."""
    command = doomed(market, 1003, market.lot(1))
    market.lot(1, quantity=FULL - 9)
    before = tables(market)
    for _ in range(2):
        answer = market.do("orders.cancel", **command, request_id="r-1")
        assert (answer["outcome"], answer["errors"][0]["path"]) == ("invalid", "order_id")
    assert tables(market) == before
    (dead,) = market.rows("SELECT * FROM unwind.dead_jobs")
    assert (dead.task, dead.arguments) == ("orders.cancel", command | {"request_id": "r-1", "dry_run": False})
    market.lot(1, quantity=FULL - 10)
    assert market.do("orders.cancel", **command, request_id="r-1")["outcome"] == "done"
    assert market.row("SELECT quantity FROM unwind.lots").quantity == FULL


def test_the_others_of_a_set_are_not_stopped(market: Market) -> None:
    """Contract 2.3: one bad order never stops the others."""
    full, fine = doomed(market, 1003, market.lot(1)), doomed(market, 1004, market.lot(2, color_id=7))
    market.lot(1, quantity=FULL)
    answers = market.done("orders.cancel_many", orders=[full, fine])["answers"]
    assert [answer["outcome"] for answer in answers] == ["invalid", "done"]


def test_a_dry_run_says_so_and_parks_nothing(market: Market) -> None:
    """Rules 5: a dry run writes nothing."""
    command = doomed(market, 1003, market.lot(1))
    market.lot(1, quantity=FULL)
    assert market.do("orders.cancel", **command, dry_run=True)["outcome"] == "invalid"
    assert market.rows("SELECT * FROM unwind.dead_jobs") == []
