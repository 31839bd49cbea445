"""Recording of lots."""

from __future__ import annotations

from typing import Any

import pytest

from models import inventory
from models.stock_moves import StockMoveRow
from policies.lot_imports import LotEntry
from tasks.inventory import DeleteLot, delete_lot
from tasks.lot_imports import import_entries
from tests.plugins.stored_rows import load_rows
from workers.simulation.engine import Simulation


def a_lot(**fields: Any) -> dict[str, Any]:
    """The arguments of a plain lot, with these fields instead."""
    return {
        "lot_id": 1,
        "seller_id": "s",
        "item": {"no": "3001", "type": "PART"},
        "color_id": 5,
        "quantity": 10,
        "new_or_used": "N",
        "unit_price": "0.1000",
    } | fields


@pytest.fixture
def store(simulation: Simulation) -> Simulation:
    for member in ("s", "t"):
        simulation.do("members.record", member_id=member, handle=member, email=f"{member}@example.org")
    return simulation


def stock(simulation: Simulation, seller: str = "s") -> list[dict[str, Any]]:
    with simulation.database.transaction() as conn:
        return [lot.snapshot() for lot in inventory.stream_lots(conn, seller)]


def journal(simulation: Simulation) -> list[tuple[str, int]]:
    with simulation.database.transaction() as conn:
        return [(move.kind, move.delta) for move in load_rows(conn, StockMoveRow)]


FULL = a_lot(
    completeness="S",
    bind_id=0,
    description="Sealed",
    remarks="Shelf 3",
    bulk=2,
    is_retain=True,
    is_stock_room=True,
    stock_room_id="B",
    my_cost="0.0500",
    my_weight="2.3200",
    sale_rate=10,
    tier_quantity1=10,
    tier_price1="0.0900",
    tier_quantity2=20,
    tier_price2="0.0800",
    tier_quantity3=30,
    tier_price3="0.0700",
    reserved_for=None,
)


def test_a_lot_is_stored_with_all_its_fields(store: Simulation) -> None:
    assert store.do("inventory.record_lot", lot=FULL)["outcome"] == "done"
    assert stock(store) == [FULL]
    assert journal(store) == [("recorded", 10)]


def test_the_marketplace_apis_empty_tiers_are_accepted(store: Simulation) -> None:
    answer = store.do("inventory.record_lot", lot=a_lot(tier_quantity1=0, tier_price1="0.0000"))
    assert answer["outcome"] == "done"
    assert stock(store)[0]["tier_quantity1"] is None


def test_a_difference_in_quantity_is_posted_as_an_adjustment(store: Simulation) -> None:
    for quantity in (10, 7, 7, 12):
        answer = store.do("inventory.record_lot", lot=a_lot(quantity=quantity))
    assert answer["effects"] == {"lot_id": 1, "quantity": 12, "recorded": False, "adjusted": 5}
    assert journal(store) == [("recorded", 10), ("adjusted", -3), ("adjusted", 5)]


def test_a_lot_that_becomes_another_item_moves_its_units(store: Simulation) -> None:
    store.do("inventory.record_lot", lot=a_lot())
    store.do("inventory.record_lot", lot=a_lot(color_id=6, quantity=8))
    assert journal(store) == [("recorded", 10), ("adjusted", -10), ("adjusted", 8)]


def test_a_lot_never_moves_to_another_seller(store: Simulation) -> None:
    store.do("inventory.record_lot", lot=a_lot())
    assert store.do("inventory.record_lot", lot=a_lot(seller_id="t"))["code"] == "NOT_A_PARTY"
    assert stock(store, "t") == []


def test_an_unknown_seller_has_no_lots(store: Simulation) -> None:
    assert store.do("inventory.record_lot", lot=a_lot(seller_id="x"))["code"] == "MEMBER_UNKNOWN"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"quantity": -1}, "lot.quantity"),
        ({"quantity": 2**31}, "lot.quantity"),
        ({"quantity": 1.0}, "lot.quantity"),
        ({"quantity": True}, "lot.quantity"),
        ({"unit_price": "0"}, "lot.unit_price"),
        ({"unit_price": "-1.00"}, "lot.unit_price"),
        ({"unit_price": 0.1}, "lot.unit_price"),
        ({"unit_price": "0.00001"}, "lot.unit_price"),
        ({"unit_price": "1e2"}, "lot.unit_price"),
        ({"sale_rate": 100}, "lot.sale_rate"),
        ({"sale_rate": -1}, "lot.sale_rate"),
        ({"bulk": 0}, "lot.bulk"),
        ({"bulk": 2**40}, "lot.bulk"),
        ({"bulk": 2**70}, "lot.bulk"),
        ({"new_or_used": "X"}, "lot.new_or_used"),
        ({"completeness": "X"}, "lot.completeness"),
        ({"stock_room_id": "A"}, "lot.stock_room_id"),
        ({"is_stock_room": True, "stock_room_id": "D"}, "lot.stock_room_id"),
        ({"is_stock_room": True, "reserved_for": "b"}, "lot.reserved_for"),
        ({"is_retain": "yes"}, "lot.is_retain"),
        ({"my_cost": "-0.0100"}, "lot.my_cost"),
        ({"description": "x" * 2001}, "lot.description"),
        ({"remarks": "a\x00b"}, "lot.remarks"),
        ({"tier_quantity1": 10}, "lot.tier_quantity1"),
        ({"tier_price1": "0.05"}, "lot.tier_quantity1"),
        ({"tier_quantity1": 10, "tier_price1": "0.1000"}, "lot.tier_price1"),
        ({"tier_quantity2": 10, "tier_price2": "0.0900"}, "lot.tier_quantity2"),
        (
            {"tier_quantity1": 10, "tier_price1": "0.09", "tier_quantity2": 10, "tier_price2": "0.08"},
            "lot.tier_quantity2",
        ),
        ({"tier_quantity1": 10, "tier_price1": "0.08", "tier_quantity2": 20, "tier_price2": "0.09"}, "lot.tier_price2"),
        ({"lot_id": 9_000_000_000_000}, "lot.lot_id"),
        ({"lot_id": 0}, "lot.lot_id"),
        ({"item": {"no": "3001"}}, "lot.item.type"),
        ({"colour": 5}, "lot.colour"),
    ],
)
def test_an_invalid_lot_is_named_and_not_stored(store: Simulation, fields: dict[str, Any], path: str) -> None:
    answer = store.do("inventory.record_lot", lot=a_lot(**fields))
    assert answer["outcome"] == "invalid"
    assert path in [problem["path"] for problem in answer["errors"]]
    assert stock(store) == []
    assert journal(store) == []


def test_a_fact_has_no_actor(store: Simulation) -> None:
    assert store.do("inventory.record_lot", lot=a_lot(), staff="ann")["outcome"] == "invalid"


def test_a_lot_made_by_a_return_can_be_recorded_again(store: Simulation) -> None:
    fields = {
        "item_type": "PART",
        "item_no": "3001",
        "color_id": 5,
        "new_or_used": "N",
        "quantity": 10,
        "unit_price": 1,
    }
    (result,) = import_entries(a_lot()["seller_id"], [LotEntry(1, None, 0, fields)], {}, None, write=True)
    answer = store.do("inventory.record_lot", lot=a_lot(lot_id=result.lot_id, quantity=3))
    assert answer["effects"]["adjusted"] == -7


def test_fields_of_the_marketplace_s_api_are_named_in_the_answer(store: Simulation) -> None:
    lot = a_lot(inventory_id=1, color_name="Red", item={"no": "3001", "type": "PART", "name": "Brick"})
    answer = store.do("inventory.record_lot", lot=lot)
    assert {(error["path"], error["message"]) for error in answer["errors"]} == {
        ("lot.inventory_id", "is BrickLink's name of lot_id: send it as lot_id"),
        ("lot.color_name", "is BrickLink's and not stored: leave it out"),
        ("lot.item.name", "is BrickLink's and not stored: leave it out"),
    }


def test_a_deleted_lot_is_an_adjustment(store: Simulation) -> None:
    """R109, R100: what was on hand leaves the journal, even if it was nothing; the number may be recorded again."""
    for lot_id, quantity in ((1, 10), (2, 0)):
        store.do("inventory.record_lot", lot=a_lot(lot_id=lot_id, quantity=quantity))
        answer = store.do("inventory.delete_lot", lot_id=lot_id, seller_id="s")
        assert (answer["outcome"], answer["effects"]) == ("done", {"lot_id": lot_id, "adjusted": -quantity})
    assert stock(store) == []
    assert journal(store) == [("recorded", 10), ("adjusted", -10), ("recorded", 0), ("adjusted", 0)]
    assert store.do("inventory.record_lot", lot=a_lot())["effects"]["recorded"]


def test_a_lot_is_deleted_by_its_seller_and_once(store: Simulation) -> None:
    """R109: an unknown lot and another's each have their answer, and nothing changes."""
    store.do("inventory.record_lot", lot=a_lot())
    for arguments, code in (
        ({"lot_id": 2, "seller_id": "s"}, "LOT_UNKNOWN"),
        ({"lot_id": 1, "seller_id": "t"}, "NOT_A_PARTY"),
        ({"lot_id": 1, "seller_id": "nobody"}, "NOT_A_PARTY"),
    ):
        assert store.do("inventory.delete_lot", **arguments)["code"] == code
    assert len(stock(store)) == 1
    commands = [DeleteLot(lot_id=1, seller_id="s", request_id=f"r-{n}") for n in "12"]
    assert [answer.code or answer.outcome for answer in delete_lot.run(commands)] == ["done", "LOT_UNKNOWN"]
    assert journal(store) == [("recorded", 10), ("adjusted", -10)]
