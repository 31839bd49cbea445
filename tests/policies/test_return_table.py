"""Units return as `return_table` says."""

from __future__ import annotations

from dataclasses import fields as fields_of
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from policies.consolidation import Choice, Choices, LineEdit
from policies.lots import Lot, find_lot_problems
from policies.returns import ReturningLine, ReturnPlan, StockView, plan_return
from tests.policies.return_table import TABLE

NAMES = {
    "text": "description",
    "sale": "sale_rate",
    "cost": "my_cost",
    "weight": "my_weight",
    "reserved": "reserved_for",
}


def test_table_covers_enough_cases() -> None:
    assert len({row[0] for row in TABLE}) == len(TABLE) >= 40


@pytest.mark.parametrize(
    ("title", "inventory", "lines", "choices", "placed", "afterwards"), TABLE, ids=[r[0] for r in TABLE]
)
def test_units_return_as_the_table_says(
    title: str, inventory: list[str], lines: list[str], choices: str, placed: list[str], afterwards: list[str]
) -> None:
    plan = planned(inventory, lines, choices)
    assert [as_row(line.returned, line.lot_id, line.note) for line in plan.lines] == placed
    assert {lot.lot_id: lot for lot in plan.lots.values()} == {lot.lot_id: lot for lot in map(read_lot, afterwards)}
    assert all(not find_lot_problems(lot) for lot in plan.lots.values())


def planned(inventory: list[str], lines: list[str], choices: str) -> ReturnPlan:
    returning = []
    for number, line in enumerate(lines, start=1):
        units, _, lot = line.partition(" of ")
        returning.append(ReturningLine(number, int(units[1:]), read_lot(lot)))
    chosen, release = read_choices(choices)
    stock_view = StockView(read_lot(lot) for lot in inventory)
    return plan_return(1003, returning, stock_view, choices=chosen, release_auto_stockroom=release)


def as_row(returned: int, lot_id: int | None, note: str | None) -> str:
    where = None if lot_id is None else f"new{-lot_id}" if lot_id < 0 else str(lot_id)
    return " ".join(str(word) for word in (returned, where, note) if word is not None)


def read_lot(text: str) -> Lot:
    """Read a lot in the notation of the table."""
    number, item, *words = text.split()
    item_no, colour, condition = item.split("/")
    lot_id = -int(number[3:]) if number.startswith("new") else int(number)
    plain = Lot(lot_id, "s", "PART", item_no, int(colour), 1, condition, Decimal("1.0000"))
    for word in words:
        plain = replace(plain, **read_word(word))
    return plain


def read_word(word: str) -> dict[str, Any]:
    name, _, value = word.partition("=")
    if name[0] in "x@" and not value:
        return {"quantity": int(name[1:])} if name[0] == "x" else {"unit_price": Decimal(name[1:])}
    if name == "retain":
        return {"is_retain": True}
    if name == "room":
        return {"is_stock_room": True, "stock_room_id": value[0], "auto_stockroom": value.endswith("!")}
    if name == "tiers":
        pairs = (pair.split(":") for pair in value.split(","))
        return {"tiers": tuple((int(quantity), Decimal(price)) for quantity, price in pairs)}
    known = {"type": "item_type", "comp": "completeness", "seller": "seller_id", "bind": "bind_id"} | NAMES
    field = known.get(name, name)
    if field in ("bind_id", "sale_rate", "bulk"):
        return {field: int(value)}
    return {field: Decimal(value) if field.startswith("my_") else value.replace("_", " ")}


def read_choices(text: str) -> tuple[Choices, bool]:
    """Read choices in the notation of the table, and whether RELEASE_AUTO_STOCKROOM is on."""
    values: dict[str, Choice] = {}
    edits: dict[int, LineEdit] = {}
    consolidate, release = True, False
    for part in (part.strip() for part in text.split(" / ")):
        if ":" in part:
            line_no, _, edit_text = part.partition(": ")
            edits[int(line_no)] = _edited(edits.get(int(line_no), LineEdit()), edit_text)
            continue
        for word in part.split():
            group, _, choice = word.partition("=")
            consolidate = consolidate and word != "separate"
            release = release or word == "release"
            if choice:
                values[group] = Choice(choice)
    return Choices(consolidate, values, edits), release


def _edited(edit: LineEdit, edit_text: str) -> LineEdit:
    if edit_text == "delete":
        return replace(edit, delete=True)
    if edit_text.startswith("x"):
        return replace(edit, quantity=int(edit_text[1:]))
    fields = {name: value for name, value in read_word(edit_text).items() if name != "auto_stockroom"}
    as_json = {name: str(value) if isinstance(value, Decimal) else value for name, value in fields.items()}
    assert set(as_json) <= {field.name for field in fields_of(Lot)}
    return replace(edit, fields={**edit.fields, **as_json})
