"""Tests of the files that are written: what comes in again is what went out, and what BrickLink takes as it is."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as some

from policies.lot_imports import LotEntry
from policies.lots import FIRST_UNWIND_LOT_ID, Lot, find_lot_problems
from workers.cli.files.lot_elements import COMPLETENESS, ITEM_TYPES
from workers.cli.files.lot_reader import LotFile
from workers.cli.files.lot_writer import write_store, write_updates, write_upload

TEXTS = some.text(some.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)
PRICES = some.integers(1, 10**7).map(lambda n: Decimal(n) / 10_000)
COSTS = some.none() | some.just(Decimal("0.0000")) | PRICES
PLAIN = Lot(501, "s", "PART", "3001", 5, 10, "N", Decimal("0.5000"))
OURS = replace(PLAIN, lot_id=FIRST_UNWIND_LOT_ID, bind_id=7, remarks="A & B", tiers=((10, Decimal("0.4000")),))
NAMES = some.text("abcXYZ0123456789-_äß", min_size=1, max_size=12)


@some.composite
def lots(draw: Any) -> Lot:
    """Any lot that `inventory.record_lot` takes: custom items, superlot parts, texts with any character."""
    price = draw(PRICES)
    in_stockroom = draw(some.booleans())
    tiers = []
    for number in range(draw(some.integers(0, 3))):
        cheaper = price - Decimal(number + 1) / 10_000
        if cheaper > 0:
            tiers.append(((number + 1) * 10, cheaper))
    lot = Lot(
        lot_id=draw(some.integers(1, 10**12) | some.integers(FIRST_UNWIND_LOT_ID, FIRST_UNWIND_LOT_ID + 99)),
        seller_id="s",
        item_type=draw(some.sampled_from(sorted(ITEM_TYPES.values())) | some.just("FOO")),
        item_no=draw(NAMES | some.just("") | some.just("  ")),
        color_id=draw(some.integers(0, 999)),
        quantity=draw(some.integers(0, 2**31 - 1)),
        new_or_used=draw(some.sampled_from("NU")),
        unit_price=price,
        completeness=draw(some.sampled_from([None, "C", "B", "S"])),
        bind_id=draw(some.integers(0, 10**12)),
        description=draw(TEXTS),
        remarks=draw(TEXTS),
        bulk=draw(some.integers(1, 1000)),
        is_retain=draw(some.booleans()),
        is_stock_room=in_stockroom,
        stock_room_id=draw(some.sampled_from([None, "A", "B", "C"])) if in_stockroom else None,
        my_cost=draw(COSTS),
        my_weight=draw(COSTS),
        sale_rate=draw(some.integers(0, 99)),
        tiers=tuple(tiers),
        reserved_for=None if in_stockroom else draw(some.none() | NAMES),
    )
    assert find_lot_problems(lot) == []
    return lot


def entries(content: str) -> list[LotEntry]:
    file = LotFile(io.BytesIO(content.encode()), "s")
    assert list(file.inspect()) == []
    assert file.unread == {}
    return list(file.entries())


def with_named_room(lot: Lot) -> Lot:
    return replace(lot, stock_room_id=(lot.stock_room_id or "A") if lot.is_stock_room else None)


def brickstore(lot: Lot) -> str:
    """The lot as BrickStore writes it: what has its default is left out, and there is no superlot."""
    sealed = {"B": "I", "S": "M", "C": "C"}
    values = {
        "ItemID": lot.item_no,
        "ItemTypeID": {full: letter for letter, full in ITEM_TYPES.items()}.get(lot.item_type, lot.item_type),
        "ColorID": lot.color_id,
        "Qty": lot.quantity,
        "Price": lot.unit_price,
        "Condition": lot.new_or_used,
        "SubCondition": sealed.get(lot.completeness or ""),
        "Bulk": lot.bulk if lot.bulk != 1 else None,
        "Sale": lot.sale_rate or None,
        "Cost": lot.my_cost or None,
        "Comments": lot.description or None,
        "Remarks": lot.remarks or None,
        "Reserved": lot.reserved_for,
        "LotID": lot.lot_id,
        "TotalWeight": f"{lot.my_weight * lot.quantity:.4f}" if lot.my_weight else None,
        "Retain": "" if lot.is_retain else None,
        "Stockroom": (lot.stock_room_id or "") if lot.is_stock_room else None,
        **{f"TQ{number}": quantity for number, (quantity, _) in enumerate(lot.tiers, start=1)},
        **{f"TP{number}": price for number, (_, price) in enumerate(lot.tiers, start=1)},
    }
    elements = (f"<{name}>{escape(str(value))}</{name}>" for name, value in values.items() if value is not None)
    return f'<BrickStoreXML><Inventory Currency="EUR"><Item>{"".join(elements)}</Item></Inventory></BrickStoreXML>'


@given(lots())
def test_a_store_that_is_written_and_read_again_changes_nothing(lot: Lot) -> None:
    (entry,) = entries("".join(write_store([lot])))
    assert entry.lot_id == lot.lot_id
    assert entry.applied_to(lot) == lot


@given(lots())
def test_a_store_in_json_changes_nothing_when_it_is_read_again(lot: Lot) -> None:
    (entry,) = entries(json.dumps([lot.snapshot()]))
    assert entry.applied_to(lot) == lot


@given(lots(), lots())
def test_a_store_that_is_read_again_restores_each_lot(lot: Lot, later: Lot) -> None:
    """Each field is said, also an empty one; only a stockroom without a name comes back as room A."""
    lot = with_named_room(lot)
    (entry,) = entries("".join(write_store([lot])))
    restored = entry.applied_to(replace(later, lot_id=lot.lot_id))
    (written_again,) = entries("".join(write_store([restored])))
    assert written_again.fields == entry.fields


@given(lots().filter(lambda lot: lot.description.isprintable() and lot.remarks.isprintable()))
def test_a_brickstore_file_changes_nothing_of_the_lot_that_it_was_written_from(lot: Lot) -> None:
    """Neither the weight, which it has for all units together, nor the superlot, which it has no place for."""
    known = with_named_room(lot)
    (entry,) = entries(brickstore(known))
    assert entry.applied_to(known) == known


@given(lots(), lots())
def test_a_brickstore_file_says_the_default_by_leaving_it_out(lot: Lot, later: Lot) -> None:
    """A remark that was removed in BrickStore is removed; weight and superlot stay."""
    (entry,) = entries(brickstore(replace(lot, remarks="", description="", is_retain=False, my_weight=None)))
    after = entry.applied_to(later)
    assert (after.remarks, after.description, after.is_retain) == ("", "", False)
    assert (after.my_weight, after.bind_id) == (later.my_weight, later.bind_id)


def bsx(values: str, attributes: str = "") -> LotEntry:
    content = (
        f"<BrickStoreXML><Inventory{attributes}><Item><ItemID>3001</ItemID><ItemTypeID>P</ItemTypeID><ColorID>5</ColorID>"
        f"<Qty>1</Qty><Condition>N</Condition><LotID>5</LotID>{values}</Item></Inventory></BrickStoreXML>"
    )
    (entry,) = entries(content)
    return entry


@pytest.mark.parametrize(
    ("values", "attributes", "is_kept"),
    [
        ("<MyCost>1.000</MyCost>", "", True),
        ("<Remarks>x</Remarks>", "", True),
        ("<Remarks>x</Remarks>", ' Currency="EUR"', False),
        ("<Cost>1.000</Cost>", "", False),
        ("<Cost>1.000</Cost><Completeness/>", ' Currency="EUR"', True),
    ],
)
def test_only_a_file_that_is_brickstore_s_says_defaults_of_flags_by_leaving_them_out(
    values: str, attributes: str, is_kept: bool
) -> None:
    """BrickSync has no place for flags, and its file of new parts has no element that only BrickSync writes."""
    lot = replace(PLAIN, lot_id=5, is_retain=True, is_stock_room=True, stock_room_id="B")
    after = bsx(values, attributes).applied_to(lot)
    assert (after.is_retain, after.stock_room_id) == ((True, "B") if is_kept else (False, None))


def test_bricksync_s_file_changes_what_it_says_and_leaves_out_what_is_empty() -> None:
    lot = replace(PLAIN, lot_id=5, quantity=1, is_retain=True, is_stock_room=True, stock_room_id="B", remarks="x")
    assert bsx("<MyCost>1.000</MyCost>").applied_to(lot) == replace(lot, my_cost=Decimal("1.0000"), remarks="")


def test_an_upload_can_be_pasted_as_it_is() -> None:
    """No declaration, no number that BrickLink never saw, nothing of ours; all six of the tiers or none."""
    assert "".join(write_upload([PLAIN, OURS])) == (
        "<INVENTORY>\n"
        " <ITEM><LOTID>501</LOTID><ITEMTYPE>P</ITEMTYPE><ITEMID>3001</ITEMID><COLOR>5</COLOR><QTY>10</QTY>"
        "<PRICE>0.5000</PRICE><CONDITION>N</CONDITION></ITEM>\n"
        " <ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>3001</ITEMID><COLOR>5</COLOR><QTY>10</QTY><PRICE>0.5000</PRICE>"
        "<CONDITION>N</CONDITION><REMARKS>A &amp; B</REMARKS><TQ1>10</TQ1><TQ2>0</TQ2><TQ3>0</TQ3><TP1>0.4000</TP1>"
        "<TP2>0.0000</TP2><TP3>0.0000</TP3></ITEM>\n"
        "</INVENTORY>\n"
    )


def test_an_update_adds_to_what_bricklink_has() -> None:
    assert "".join(write_updates([PLAIN])) == (
        "<INVENTORY>\n <ITEM><LOTID>501</LOTID><QTY>+10</QTY></ITEM>\n</INVENTORY>\n"
    )


@pytest.mark.parametrize("written", ["B", "S", "C"])
def test_the_completeness_has_one_letter_in_each_format(written: str) -> None:
    (entry,) = entries("".join(write_store([replace(PLAIN, item_type="SET", completeness=written)])))
    assert entry.fields["completeness"] == written
    assert set(COMPLETENESS.values()) == {"B", "S", "C", None}
