"""A table of returns: the inventory, the returning units, and the inventory afterwards.

A lot is written `number item/colour/condition xquantity`, then its other values: `@price`, `type=`, `comp=`, `seller=`,
`tiers=10:0.9,20:0.8`, `sale=`, `bulk=`, `bind=`, `room=A` (`room=A!` if selling out put it there), `retain`,
`reserved=`, `remarks=`, `text=` (the description), `cost=`, `weight=`.  A line is `xunits of` the lot as it was sold.
The choices of the four steps are `separate` or `group=choice`; edits are `line: delete`, `line: x2` or `line: field`.
A new lot is `new1`.
"""

from __future__ import annotations

from dataclasses import fields as fields_of
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from policies.consolidation import Choice, Choices, LineEdit
from policies.lots import Lot, find_lot_problems
from policies.returns import ReturningLine, ReturnPlan, StockView, plan_return

TABLE: list[tuple[str, list[str], list[str], str, list[str], list[str]]] = [
    # --- which lot is the same item (R66 to R69)
    ("R66 the lot grows", ["1 3001/5/N x6"], ["x4 of 1 3001/5/N"], "", ["4 1"], ["1 3001/5/N x10"]),
    ("R67 no lot at all: a new one", [], ["x4 of 1 3001/5/N"], "", ["4 new1"], ["new1 3001/5/N x4"]),
    (
        "R68 another number is another item",
        ["2 3002/5/N x6"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4"],
    ),
    ("R68 another colour", ["2 3001/7/N x6"], ["x4 of 1 3001/5/N"], "", ["4 new1"], ["new1 3001/5/N x4"]),
    ("R68 another condition", ["2 3001/5/U x6"], ["x4 of 1 3001/5/N"], "", ["4 new1"], ["new1 3001/5/N x4"]),
    (
        "R68 another item type",
        ["2 3001/5/N x6 type=GEAR"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4"],
    ),
    (
        "R68 another completeness",
        ["2 6080-1/0/U x1 type=SET comp=B"],
        ["x1 of 1 6080-1/0/U type=SET comp=C"],
        "",
        ["1 new1"],
        ["new1 6080-1/0/U x1 type=SET comp=C"],
    ),
    (
        "R68 the same completeness",
        ["2 6080-1/0/U x1 type=SET comp=B"],
        ["x1 of 1 6080-1/0/U type=SET comp=B"],
        "",
        ["1 2"],
        ["2 6080-1/0/U x2 type=SET comp=B"],
    ),
    ("R69 another price matches", ["2 3001/5/N x6 @2"], ["x4 of 1 3001/5/N @1"], "", ["4 2"], ["2 3001/5/N x10 @2"]),
    (
        "R69 other remarks match, and stay old",
        ["2 3001/5/N x6 remarks=Old text=Bright"],
        ["x4 of 1 3001/5/N remarks=New text=Dull"],
        "",
        ["4 2"],
        ["2 3001/5/N x10 remarks=Old text=Bright"],
    ),
    (
        "R69 every other field differs and matches",
        ["2 3001/5/N x6 @3 bulk=2 sale=10 tiers=10:2 cost=1 weight=2 retain"],
        ["x4 of 1 3001/5/N @1"],
        "",
        ["4 2"],
        ["2 3001/5/N x10 @3 bulk=2 sale=10 tiers=10:2 cost=1 weight=2 retain"],
    ),
    (
        "SPEC a raised price is kept",
        ["1 3001/5/N x6 @1.5"],
        ["x4 of 1 3001/5/N @1"],
        "",
        ["4 1"],
        ["1 3001/5/N x10 @1.5"],
    ),
    # --- which of several (R76)
    (
        "R76 the lot it was sold from comes first",
        ["1 3001/5/N x6", "2 3001/5/N x6"],
        ["x4 of 2 3001/5/N"],
        "",
        ["4 2"],
        ["2 3001/5/N x10"],
    ),
    (
        "R76 even out of a stockroom",
        ["1 3001/5/N x6", "2 3001/5/N x6 room=B"],
        ["x4 of 2 3001/5/N"],
        "",
        ["4 2 RETURNED_TO_STOCKROOM"],
        ["2 3001/5/N x10 room=B"],
    ),
    (
        "R76 then one for sale",
        ["1 3001/5/N x6 room=A", "2 3001/5/N x6"],
        ["x4 of 9 3001/5/N"],
        "",
        ["4 2"],
        ["2 3001/5/N x10"],
    ),
    (
        "R76 then the lowest number",
        ["3 3001/5/N x1", "2 3001/5/N x6"],
        ["x4 of 9 3001/5/N"],
        "",
        ["4 2"],
        ["2 3001/5/N x10"],
    ),
    (
        "R76 among stockrooms the lowest number",
        ["3 3001/5/N x1 room=A", "2 3001/5/N x6 room=C"],
        ["x4 of 9 3001/5/N"],
        "",
        ["4 2 RETURNED_TO_STOCKROOM"],
        ["2 3001/5/N x10 room=C"],
    ),
    (
        "R76 the source became another item meanwhile",
        ["1 3002/5/N x6", "2 3001/5/N x6"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 2"],
        ["2 3001/5/N x10"],
    ),
    # --- never into these (R81)
    (
        "R81 a superlot part",
        ["2 3001/5/N x6 bind=7"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4"],
    ),
    (
        "R81 a reserved lot",
        ["2 3001/5/N x6 reserved=ann"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4"],
    ),
    (
        "R81 its own source, reserved by now",
        ["1 3001/5/N x6 reserved=ann"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4"],
    ),
    (
        "R81 another seller's lot",
        ["2 3001/5/N x6 seller=t"],
        ["x4 of 1 3001/5/N"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4"],
    ),
    (
        "R81 an item outside the catalogue",
        ["2 /5/N x6"],
        ["x4 of 2 /5/N"],
        "",
        ["4 new1 NEEDS_REVIEW"],
        ["new1 /5/N x4"],
    ),
    (
        "5.6 a part of a superlot gets a free lot of its own",
        ["1 3001/5/N x6 bind=7", "2 3001/5/N x6"],
        ["x4 of 1 3001/5/N bind=7"],
        "",
        ["4 new1 NEEDS_REVIEW"],
        ["new1 3001/5/N x4"],
    ),
    (
        "5.6 two parts of a superlot get a lot each, and a plain one does not join them",
        [],
        ["x4 of 1 3001/5/N bind=7", "x3 of 2 3001/5/N bind=7", "x2 of 3 3001/5/N"],
        "",
        ["4 new1 NEEDS_REVIEW", "3 new2 NEEDS_REVIEW", "2 new3"],
        ["new1 3001/5/N x4", "new2 3001/5/N x3", "new3 3001/5/N x2"],
    ),
    (
        "C24 sold out of a reserved lot: the reservation ended with the sale",
        [],
        ["x4 of 1 3001/5/N reserved=ann"],
        "",
        ["4 new1 NEEDS_REVIEW"],
        ["new1 3001/5/N x4"],
    ),
    # --- several lines (R75)
    (
        "R75 two lines of one item, no lot: one new lot with the sum",
        [],
        ["x4 of 1 3001/5/N", "x3 of 2 3001/5/N"],
        "",
        ["4 new1", "3 new1"],
        ["new1 3001/5/N x7"],
    ),
    (
        "R75 two lines of one item join one lot",
        ["3 3001/5/N x6"],
        ["x4 of 1 3001/5/N", "x3 of 2 3001/5/N"],
        "",
        ["4 3", "3 3"],
        ["3 3001/5/N x13"],
    ),
    (
        "R76 each line to its own source",
        ["1 3001/5/N x6", "2 3001/5/N x1"],
        ["x4 of 1 3001/5/N", "x3 of 2 3001/5/N"],
        "",
        ["4 1", "3 2"],
        ["1 3001/5/N x10", "2 3001/5/N x4"],
    ),
    (
        "different items, different lots",
        ["1 3001/5/N x6"],
        ["x4 of 1 3001/5/N", "x3 of 2 3002/5/N"],
        "",
        ["4 1", "3 new1"],
        ["1 3001/5/N x10", "new1 3002/5/N x3"],
    ),
    ("R80 nothing is left of the line", ["1 3001/5/N x6"], ["x0 of 1 3001/5/N"], "", ["0"], []),
    # --- the values of a new lot
    (
        "R67 with all values of the line",
        [],
        ["x4 of 1 3001/5/N @2 tiers=10:1.5,20:1 sale=5 bulk=2 retain remarks=Box text=Nice cost=1 weight=3"],
        "",
        ["4 new1"],
        ["new1 3001/5/N x4 @2 tiers=10:1.5,20:1 sale=5 bulk=2 retain remarks=Box text=Nice cost=1 weight=3"],
    ),
    # --- lots that are put away: R77
    (
        "R77 sold out and retained: it stays in stockroom A and that is said",
        ["1 3001/5/N x0 room=A! retain"],
        ["x4 of 1 3001/5/N retain"],
        "",
        ["4 1 RETURNED_TO_STOCKROOM"],
        ["1 3001/5/N x4 room=A! retain"],
    ),
    (
        "R77 with the term, what selling out put away goes back on sale",
        ["1 3001/5/N x0 room=A! retain"],
        ["x4 of 1 3001/5/N retain"],
        "release",
        ["4 1"],
        ["1 3001/5/N x4 retain"],
    ),
    (
        "5.6 what the seller put away stays there, also with the term",
        ["1 3001/5/N x2 room=B"],
        ["x4 of 1 3001/5/N"],
        "release",
        ["4 1 RETURNED_TO_STOCKROOM"],
        ["1 3001/5/N x6 room=B"],
    ),
    (
        "R77 two lines into one released lot",
        ["1 3001/5/N x0 room=A! retain"],
        ["x4 of 1 3001/5/N", "x1 of 1 3001/5/N"],
        "release",
        ["4 1", "1 1"],
        ["1 3001/5/N x5 retain"],
    ),
    # --- step 1: whose values (R70, R71)
    (
        "R70 new price takes the tiers along",
        ["1 3001/5/N x6 @2 tiers=10:1"],
        ["x4 of 1 3001/5/N @3"],
        "price=new",
        ["4 1"],
        ["1 3001/5/N x10 @3"],
    ),
    (
        "R70 new price with new tiers",
        ["1 3001/5/N x6 @2"],
        ["x4 of 1 3001/5/N @3 tiers=10:2.5"],
        "price=new",
        ["4 1"],
        ["1 3001/5/N x10 @3 tiers=10:2.5"],
    ),
    (
        "R71 texts one after the other",
        ["1 3001/5/N x6 remarks=Old text=One"],
        ["x4 of 1 3001/5/N remarks=New text=Two"],
        "remarks=concatenate description=concatenate",
        ["4 1"],
        ["1 3001/5/N x10 remarks=Old_|_New text=One_|_Two"],
    ),
    (
        "R71 an empty text adds nothing",
        ["1 3001/5/N x6 remarks=Old"],
        ["x4 of 1 3001/5/N"],
        "remarks=concatenate",
        ["4 1"],
        ["1 3001/5/N x10 remarks=Old"],
    ),
    (
        "R71 a new text replaces the old one, even by nothing",
        ["1 3001/5/N x6 remarks=Old"],
        ["x4 of 1 3001/5/N"],
        "remarks=new",
        ["4 1"],
        ["1 3001/5/N x10"],
    ),
    (
        "average cost by quantity, four decimals, half up: (6 x 0.1 + 4 x 0.20005) / 10 = 0.14002",
        ["1 3001/5/N x6 cost=0.1"],
        ["x4 of 1 3001/5/N cost=0.20005"],
        "cost=average",
        ["4 1"],
        ["1 3001/5/N x10 cost=0.1400"],
    ),
    (
        "average cost exactly between two: (1 x 0.0001 + 1 x 0.0002) / 2 = 0.00015",
        ["1 3001/5/N x1 cost=0.0001"],
        ["x1 of 1 3001/5/N cost=0.0002"],
        "cost=average",
        ["1 1"],
        ["1 3001/5/N x2 cost=0.0002"],
    ),
    (
        "average with an unknown cost is the known one",
        ["1 3001/5/N x6"],
        ["x4 of 1 3001/5/N cost=0.2"],
        "cost=average",
        ["4 1"],
        ["1 3001/5/N x10 cost=0.2000"],
    ),
    (
        "average over an empty lot is the new cost",
        ["1 3001/5/N x0 cost=0.5"],
        ["x4 of 1 3001/5/N cost=0.2"],
        "cost=average",
        ["4 1"],
        ["1 3001/5/N x4 cost=0.2000"],
    ),
    (
        "each group by itself",
        ["1 3001/5/N x6 sale=5 bulk=2 weight=1 cost=1 retain"],
        ["x4 of 1 3001/5/N sale=7 bulk=3 weight=2 cost=2"],
        "sale=new weight=new retain=new",
        ["4 1"],
        ["1 3001/5/N x10 sale=7 bulk=2 weight=2 cost=1"],
    ),
    (
        "new stockroom brings a lot back on sale",
        ["1 3001/5/N x0 room=A! retain"],
        ["x4 of 1 3001/5/N"],
        "stockroom=new",
        ["4 1"],
        ["1 3001/5/N x4 retain"],
    ),
    (
        "R81 a reservation chosen for the first line keeps the second out",
        ["1 3001/5/N x6"],
        ["x4 of 1 3001/5/N reserved=ann", "x1 of 1 3001/5/N"],
        "reserved=new",
        ["4 1", "1 new1"],
        ["1 3001/5/N x10 reserved=ann", "new1 3001/5/N x1"],
    ),
    (
        "step 1 without consolidation: a lot for every line",
        ["1 3001/5/N x6"],
        ["x4 of 1 3001/5/N", "x3 of 1 3001/5/N"],
        "separate",
        ["4 new1", "3 new2"],
        ["new1 3001/5/N x4", "new2 3001/5/N x3"],
    ),
    # --- step 2: edits (R73)
    ("R73 a deleted line", ["1 3001/5/N x6"], ["x4 of 1 3001/5/N"], "1: delete", ["0 DELETED_IN_DRAFT"], []),
    ("5.4 fewer units", ["1 3001/5/N x6"], ["x4 of 1 3001/5/N"], "1: x1", ["1 1"], ["1 3001/5/N x7"]),
    ("5.4 no units", ["1 3001/5/N x6"], ["x4 of 1 3001/5/N"], "1: x0", ["0"], []),
    ("5.4 never more than remain", ["1 3001/5/N x6"], ["x4 of 1 3001/5/N"], "1: x9", ["4 1"], ["1 3001/5/N x10"]),
    (
        "5.4 edited values go where the group says new",
        ["1 3001/5/N x6 @2 remarks=Old"],
        ["x4 of 1 3001/5/N @1"],
        "price=new / 1: @5 / 1: remarks=Edited",
        ["4 1"],
        ["1 3001/5/N x10 @5 remarks=Old"],
    ),
    (
        "5.4 edited values of a new lot",
        [],
        ["x4 of 1 3001/5/N @1 tiers=10:0.5"],
        "1: @5 / 1: room=B / 1: bulk=2",
        ["4 new1 RETURNED_TO_STOCKROOM"],
        ["new1 3001/5/N x4 @5 tiers=10:0.5 room=B bulk=2"],
    ),
    (
        "5.4 a reservation that the seller makes is kept",
        [],
        ["x4 of 1 3001/5/N"],
        "1: reserved=bob",
        ["4 new1"],
        ["new1 3001/5/N x4 reserved=bob"],
    ),
]

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
    shelf = StockView(read_lot(lot) for lot in inventory)
    return plan_return(1003, returning, shelf, choices=chosen, release_auto_stockroom=release)


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
