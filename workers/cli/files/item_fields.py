"""The fields of one item of a file: elements become values of a lot, interpreted as the writing program means them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from policies.lot_imports import REQUIRED_FIELDS
from policies.lots import STOCKROOMS, TIER_FIELDS
from policies.texts import is_storable
from workers.cli.files.lot_elements import ELEMENT_OF_FIELD, FIELD_OF_ELEMENT
from workers.cli.files.xml_records import Record

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
ITEM_FIELD_DEFAULTS: dict[str, Any] = {
    "item_no": "",
    "completeness": None,
    "bulk": 1,
    "sale_rate": 0,
    "my_cost": None,
    "my_weight": None,
    "description": "",
    "remarks": "",
    "reserved_for": None,
    "is_retain": False,
    "is_stock_room": False,
    "bind_id": 0,
    **{name: 0 if "quantity" in name else None for name in TIER_FIELDS},
}
"""What empty elements mean. One of a field without a default says nothing; in BSX, an empty RETAIN says yes."""


class InvalidItem(Exception):
    pass


class ItemFields:
    def __init__(self, record: Record, is_bsx: bool) -> None:
        self._record, self._is_bsx = record, is_bsx
        self._elements: dict[str, str] = {}
        for element, text in record.values.items():
            name = FIELD_OF_ELEMENT.get(element)
            if name is None:
                continue
            if element in record.nested:
                raise InvalidItem(f"{record.spelling[element]} has other elements in its text")
            other = self._elements.get(name)
            if other is None or not record.values[other].strip():
                self._elements[name] = element
            elif text.strip() and record.values[other].strip() != text.strip():
                spelling = record.spelling
                raise InvalidItem(f"{spelling[other]} and {spelling[element]} say different things")

    def has(self, *names: str) -> bool:
        return any(name in self._elements for name in names)

    def spelled(self, name: str) -> str:
        element = self._elements.get(name)
        return self._record.spelling[element] if element else ELEMENT_OF_FIELD[name]

    def text(self, name: str) -> str | None:
        element = self._elements.get(name)
        return None if element is None else self._record.values[element].strip()

    def integer(self, name: str) -> int | None:
        number: int | None = self._parse(name, _parse_number_field, None)
        return number

    def signed_quantity(self) -> int:
        text = (self.text("quantity") or "").replace(",", "")
        if not re.fullmatch(r"[+-][0-9]{1,10}", text):
            raise InvalidItem(
                f"{self.spelled('quantity')} of an update needs a sign, such as +3 or -3: it is added to what the lot "
                "has then"
            )
        return int(text)

    def all(self, *, without: str = "") -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name in self._elements:
            if name not in ("lot_id", "stock_room_id", "is_stock_room", without):
                value = self._value(name)
                if value is not _ITEM_FIELD_NOT_SAID:
                    fields[name] = value
        fields |= self._stockroom()
        if not without and any(name in fields for name in TIER_FIELDS):  # the six go together, except in an update
            fields = {**{name: ITEM_FIELD_DEFAULTS[name] for name in TIER_FIELDS}, **fields}
        if not all(is_storable(text) for text in fields.values() if isinstance(text, str)):
            raise InvalidItem("a text has a character that cannot be stored")
        return fields

    def check_required(self, fields: Mapping[str, Any]) -> None:
        for name in REQUIRED_FIELDS:
            if fields.get(name) is None:
                raise InvalidItem(f"{self.spelled(name)} is missing")
        if fields["item_type"] in ("PART", "GEAR") and fields.get("color_id") is None:
            raise InvalidItem(
                f"{self.spelled('color_id')} is missing: a {fields['item_type']} is another item in each colour "
                "(0 is BrickLink's number for no colour)"
            )

    def _value(self, name: str) -> Any:
        element = self._elements[name]
        if name in ("description", "remarks"):
            return self._record.values[element]
        if element == "TOTALWEIGHT":
            weight, units = self._parse(name, _parse_cost_field, None), abs(self.integer("quantity") or 0)
            each = (weight / units).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP) if weight and units else None
            return _ITEM_FIELD_NOT_SAID if each is None else each
        empty = True if name == "is_retain" and self._is_bsx else ITEM_FIELD_DEFAULTS.get(name, _ITEM_FIELD_NOT_SAID)
        return self._parse(name, _ITEM_FIELD_PARSERS[name], empty)

    def _parse(self, name: str, parse: Callable[[str], Any], empty: Any) -> Any:
        text = self.text(name)
        try:
            return parse(text) if text else empty
        except ValueError as problem:
            raise InvalidItem(f"{self.spelled(name)} {problem}") from None

    def _stockroom(self) -> dict[str, Any]:
        flag, room = self.text("is_stock_room"), self.text("stock_room_id")
        flag, room = flag and flag.upper(), room and room.upper()
        if flag == "" and self._is_bsx:
            flag = "A"
        if flag in STOCKROOMS:  # BSX
            flag, room = "Y", flag
        if flag not in (None, "", "Y", "N") or room not in (None, "", *STOCKROOMS):
            raise InvalidItem(f"{self.spelled('is_stock_room')} must be Y or N, and a stockroom A, B or C")
        if flag in ("", "N"):
            if room:
                raise InvalidItem(f"STOCKROOM says no, but STOCKROOMID says {room}")
            return {"is_stock_room": False}
        if flag is None and not room:
            return {}
        return {"is_stock_room": True} | ({"stock_room_id": room} if room else {})


_ITEM_FIELD_NOT_SAID = object()
_GROUPED_AMOUNT_FIELD = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")


def _parse_number_field(text: str) -> int:
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


_ITEM_FIELD_PARSERS: dict[str, Callable[[str], Any]] = {
    "item_type": _parse_item_type_field,
    "item_no": str,
    "color_id": _parse_number_field,
    "quantity": _parse_number_field,
    "unit_price": _parse_price_field,
    "new_or_used": _code_field_parser({"N": "N", "U": "U"}),
    "completeness": _code_field_parser(COMPLETENESS),
    "bulk": lambda text: _parse_number_field(text) or 1,
    "sale_rate": _parse_number_field,
    "is_retain": _code_field_parser({"Y": True, "N": False}),
    "reserved_for": str,
    "my_cost": _parse_cost_field,
    "my_weight": _parse_cost_field,
    "bind_id": _parse_number_field,
    **{name: _parse_number_field if "quantity" in name else _parse_price_field for name in TIER_FIELDS},
}


def parse_amount_field(text: str) -> Decimal | None:
    """Parse an amount, rounded half up to four decimals; None if it is none. Downloads group thousands: 1,752.50."""
    text = text.replace(",", "") if _GROUPED_AMOUNT_FIELD.fullmatch(text) else text
    try:
        # BrickStore writes binary fractions such as 0.0399999991.
        amount = Decimal(text).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None
