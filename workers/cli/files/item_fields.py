"""The fields of one item of a file: elements become values of a lot, interpreted as the writing program means them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypeVar

from policies.lot_imports import REQUIRED_FIELDS
from policies.lots import STOCKROOMS, TIER_FIELDS
from policies.texts import is_storable
from workers.cli.files.lot_elements import ELEMENTS, FIELD_OF_ELEMENT, NOT_SAID, parse_number_field
from workers.cli.files.xml_records import Record

T = TypeVar("T")


class InvalidItem(Exception):
    pass


class ItemFields:
    def __init__(self, record: Record, is_bsx: bool) -> None:
        if record.problem or record.items:
            raise InvalidItem(record.problem or "it has another ITEM in it")
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

    def spelled(self, name: str) -> str:
        element = self._elements.get(name)
        return self._record.spelling[element] if element else ELEMENTS[name].names[0]

    def text(self, name: str) -> str | None:
        element = self._elements.get(name)
        return None if element is None else self._record.values[element].strip()

    def integer(self, name: str) -> int | None:
        return self._parse(name, parse_number_field, None)

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
                if value is not NOT_SAID:
                    fields[name] = value
        fields |= self._stockroom()
        if not without and any(name in fields for name in TIER_FIELDS):  # the six go together, except in an update
            fields = {**{name: ELEMENTS[name].empty for name in TIER_FIELDS}, **fields}
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
        _, parse, empty = ELEMENTS[name]
        value: Any = self._parse(name, parse, True if name == "is_retain" and self._is_bsx else empty)
        if element == "TOTALWEIGHT":
            units = abs(self.integer("quantity") or 0)
            return (value / units).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP) if value and units else NOT_SAID
        return value

    def _parse(self, name: str, parse: Callable[[str], T], empty: T) -> T:
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
