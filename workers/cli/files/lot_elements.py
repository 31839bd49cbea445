"""The elements of lots in files: the field of each and how to read it, those left out, and those of some programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, NamedTuple

from policies.lots import TIER_FIELDS

ITEM_TYPES = {
    "P": "PART",
    "S": "SET",
    "M": "MINIFIG",
    "B": "BOOK",
    "G": "GEAR",
    "C": "CATALOG",
    "I": "INSTRUCTION",
    "O": "ORIGINAL_BOX",
    "U": "UNSORTED_LOT",
}
COMPLETENESS = {"C": "C", "I": "B", "B": "B", "S": "S", "M": "S", "N": None}
"""XML writes I for incomplete where the API writes B; BSX writes M (mint in sealed box) for sealed, and N for none."""
NOT_SAID = object()


def parse_number_field(text: str) -> int:
    text = text.replace(",", "")  # downloads group thousands: 1,752
    if not re.fullmatch(r"-?[0-9]{1,19}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _parse_price_field(text: str) -> Decimal:
    amount = parse_amount_field(text)
    if amount is None:
        raise ValueError("must be an amount such as 0.25")
    return abs(amount) if amount.is_zero() else amount


def _parse_cost_field(text: str) -> Decimal | None:
    return _parse_price_field(text) or None  # 0 stands for none


def _parse_item_type_field(text: str) -> str:
    item_type = ITEM_TYPES.get(text.upper(), text)
    if len(item_type) == 1:
        raise ValueError(f"must be one of {', '.join(ITEM_TYPES)}")
    return item_type


def _code_field_parser(codes: Mapping[str, Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text.upper() not in codes:
            raise ValueError(f"must be one of {', '.join(codes)}")
        return codes[text.upper()]

    return parse


def parse_amount_field(text: str) -> Decimal | None:
    """Parse an amount, rounded half up to four decimals; None if it is none. Downloads group thousands: 1,752.50."""
    text = text.replace(",", "") if re.fullmatch(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?", text) else text
    try:
        # BrickStore writes binary fractions such as 0.0399999991.
        amount = Decimal(text).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None


class LotElement(NamedTuple):
    """How files write a field: element names in capitals, BrickLink's first; `empty`: what an empty element means.

    BSX and BrickLink's XML differ in case only, apart from the synonyms. In BSX, an empty RETAIN says yes.
    """

    names: tuple[str, ...]
    parse: Callable[[str], Any]
    empty: Any = NOT_SAID


ELEMENTS: dict[str, LotElement] = {
    "lot_id": LotElement(("LOTID",), parse_number_field),
    "item_type": LotElement(("ITEMTYPE", "ITEMTYPEID"), _parse_item_type_field),
    "item_no": LotElement(("ITEMID",), str, ""),
    "color_id": LotElement(("COLOR", "COLORID"), parse_number_field),
    "quantity": LotElement(("QTY",), parse_number_field),
    "unit_price": LotElement(("PRICE",), _parse_price_field),
    "new_or_used": LotElement(("CONDITION",), _code_field_parser({"N": "N", "U": "U"})),
    "completeness": LotElement(("SUBCONDITION", "COMPLETENESS"), _code_field_parser(COMPLETENESS), None),
    "bulk": LotElement(("BULK",), lambda text: parse_number_field(text) or 1, 1),
    "sale_rate": LotElement(("SALE",), parse_number_field, 0),
    "description": LotElement(("DESCRIPTION", "COMMENTS"), str, ""),
    "remarks": LotElement(("REMARKS",), str, ""),
    "is_retain": LotElement(("RETAIN",), _code_field_parser({"Y": True, "N": False}), False),
    "is_stock_room": LotElement(("STOCKROOM",), str, False),
    "stock_room_id": LotElement(("STOCKROOMID",), str),
    "reserved_for": LotElement(("BUYERUSERNAME", "RESERVED"), str, None),
    "my_cost": LotElement(("MYCOST", "COST"), _parse_cost_field, None),
    "my_weight": LotElement(("MYWEIGHT", "TOTALWEIGHT"), _parse_cost_field, None),
    "bind_id": LotElement(("BINDID",), parse_number_field, 0),
    **{f"tier_quantity{n}": LotElement((f"TQ{n}",), parse_number_field, 0) for n in (1, 2, 3)},
    **{f"tier_price{n}": LotElement((f"TP{n}",), _parse_price_field, None) for n in (1, 2, 3)},
}
FIELD_OF_ELEMENT = {name: field for field, element in ELEMENTS.items() for name in element.names}
ELEMENT_OF_JSON_KEY = {"inventory_id": "LOTID"} | {
    field: element.names[0] for field, element in ELEMENTS.items() if field not in ("item_type", "item_no")
}
"""The API's inventory resource, and the JSON of `show lots`, as elements."""

FROM_THE_CATALOGUE = {
    "CATEGORY", "CATEGORYID", "CATEGORYNAME", "ITEMNAME", "ITEMTYPENAME", "COLORNAME", "ITEMWEIGHT", "DATEADDED",
    "DATELASTSOLD", "BASECURRENCYCODE", "ORIGPRICE", "ORIGQTY", "DIFFERENCEBASEVALUES", "SALEPRICE", "STATUS", "DELETE",
}  # fmt: skip
"""Left out without a word: the catalogue has it, or it says nothing about the lot as it is."""

WANTED_LIST = frozenset({"MINQTY", "MAXPRICE", "NOTIFY", "WANTEDSHOW", "WANTEDLISTID", "QTYFILLED"})
SET_INVENTORY = frozenset({"EXTRA", "COUNTERPART", "ALTERNATE", "MATCHID"})
BRICK_OWL = frozenset({"BOID"})
ONLY_BRICKSYNC = frozenset({"COMPLETENESS", "MYCOST", "USEDGRADE", "ALTERNATEID", "OWLID", "OWLLOTID"})
"""In BSX, only BrickSync writes these."""
ONLY_BRICKSTORE = frozenset(
    {"SUBCONDITION", "COST", "RESERVED", "RETAIN", "STOCKROOM", "TOTALWEIGHT", "MARKERTEXT", "MARKERCOLOR", "DATEADDED",
     "DATELASTSOLD"}
)  # fmt: skip
"""In BSX, BrickStore and BrickStock write these and BrickSync does not; BrickStore also names the currency."""

OMITTED_BY_BRICKSTORE = (
    "completeness", "bulk", "sale_rate", "my_cost", "description", "remarks", "reserved_for", "is_retain",
    "is_stock_room", *TIER_FIELDS,
)  # fmt: skip
"""Fields that BSX leaves out when they have their default: not said there means the default."""
OMITTED_BY_BRICKSYNC = ("bulk", "sale_rate", "my_cost", "description", "remarks", *TIER_FIELDS)
"""BrickSync's BSX has no place for the others, which a known lot keeps, as it does when the program is not certain."""

LEFT_OUT_ELEMENTS: dict[str, str] = {
    "CATEGORY": "a lot has no field for the category of a custom item",
    "CATEGORYID": "a lot has no field for the category of a custom item",
    "MARKERTEXT": "BrickStore's own mark",
    "MARKERCOLOR": "BrickStore's own mark",
    "USEDGRADE": "BrickSync's own grade",
    "ALTERNATEID": "BrickSync's own number",
    "OWLID": "Brick Owl's number of the item",
    "OWLLOTID": "Brick Owl's number of the lot",
    "IMAGE": "a picture",
}
"""Left out and named in the report, like elements that are not known."""
