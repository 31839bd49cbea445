"""Reader of inventory files: BrickLink's XML and JSON, and the BSX of BrickStore, BrickStock and BrickSync."""

from __future__ import annotations

import html
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any, BinaryIO

from policies.lot_imports import REQUIRED_FIELDS, TIER_FIELDS, BadEntry, LotEntry
from policies.lots import STOCKROOMS
from workers.cli.files.json_records import read_json
from workers.cli.files.lot_elements import (
    BRICK_OWL,
    FIELD_OF_ELEMENT,
    FIELD_OF_JSON_KEY,
    FROM_THE_CATALOGUE,
    LEFT_OUT,
    OMITTED_BY_BRICKSTORE,
    OMITTED_BY_BRICKSYNC,
    ONLY_BRICKSYNC,
    SET_INVENTORY,
    WANTED_LIST,
)
from workers.cli.files.xml_records import BSX_ROOTS, NotWellFormed, Record, Repairs, UnreadableFile, read_xml

MAX_ITEMS = 200_000
"""More than the largest stores have. Without this limit 56 MB of empty items took two minutes and 1.3 GB to refuse."""
MAX_NAMED = 20
"""Elements named in a report."""

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
COLORED_TYPES = ("PART", "GEAR")
COMPLETENESS = {"C": "C", "I": "B", "B": "B", "S": "S", "M": "S", "N": None}
"""XML writes I for incomplete where the API writes B; BSX writes M (mint in sealed box) for sealed, and N for none."""
_DEFAULTS: dict[str, Any] = {
    "completeness": None,
    "bulk": 1,
    "sale_rate": 0,
    "my_cost": None,
    "description": "",
    "remarks": "",
    "reserved_for": None,
    "is_retain": False,
    "is_stock_room": False,
    **{name: 0 if "quantity" in name else None for name in TIER_FIELDS},
}


@dataclass(slots=True)
class LotFile:
    """A file of lots, which is read more than once. `inspect` comes first: it finds out which program wrote it.

    `unread` are elements with a value that are not read: how often they occur, and where first.
    """

    file: BinaryIO
    seller_id: str
    is_update: bool = False
    format: str = ""
    items: int = 0
    excluded: int = 0
    unread: dict[str, tuple[int, str]] = field(default_factory=dict)
    repairs: Repairs = field(default_factory=Repairs)
    first_update: LotEntry | None = None
    _repairs_needed: bool = False
    _omitted: Sequence[str] = ()

    def inspect(self) -> Iterator[BadEntry]:
        """Read the file once; yield its invalid items, also those with a number that stands twice in the file."""
        try:
            yield from self._inspect()
        except NotWellFormed as problem:
            if not self._has_bare_ampersands():
                raise self._explained(problem) from None
            self._repairs_needed = True
            yield from self._inspect()

    def entries(self) -> Iterator[LotEntry]:
        for record in self._records():
            if not _is_excluded(record):
                try:
                    yield self._entry(record)
                except InvalidItem:
                    continue

    def _inspect(self) -> Iterator[BadEntry]:
        self.items = self.excluded = 0
        self.unread.clear()
        by_lot_id: dict[int, int] = {}
        lines = array("Q", [0])
        elements: set[str] = set()
        for record in self._records():
            self.items += 1
            lines.append(record.line or 0)
            if self.items > MAX_ITEMS:
                raise UnreadableFile(f"The file has more than {MAX_ITEMS:,} items; import it in parts.")
            if _is_excluded(record):
                self.excluded += 1
                continue
            self._note_elements(record, elements)
            try:
                entry = self._entry(record)
            except InvalidItem as problem:
                yield BadEntry(_named(record), str(problem))
                continue
            if entry.is_update and self.first_update is None:
                self.first_update = entry
            first = by_lot_id.setdefault(entry.lot_id, entry.number) if entry.lot_id else entry.number
            if first != entry.number:
                place = f"item {first} (line {lines[first]})" if lines[first] else f"item {first}"
                yield BadEntry(entry, f"lot {entry.lot_id} is also {place}; each lot may stand in a file once")
        if self.format == "bsx":
            self._omitted = OMITTED_BY_BRICKSYNC if elements & ONLY_BRICKSYNC else OMITTED_BY_BRICKSTORE

    def _records(self) -> Iterator[Record]:
        self.file.seek(0)
        start = self.file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        self.file.seek(0)
        if start[:1] in (b"{", b"["):
            self.format = "json"
            return self._json_records()
        repairs = None
        if self._repairs_needed:
            repairs = self.repairs = Repairs()
        return self._xml_records(read_xml(self.file, repairs))

    def _xml_records(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            if record.root in ("ORDERS", "ORDER"):
                raise UnreadableFile("This is an order download, not an inventory: `import-orders` reads it.")
            self.format = "bsx" if record.root in BSX_ROOTS else "xml"
            yield record

    def _json_records(self) -> Iterator[Record]:
        for number, item in enumerate(read_json(self.file), start=1):
            if "date_ordered" in item or "order_id" in item:
                raise UnreadableFile("These are orders, not lots: `import-orders` reads them.")
            yield record_of_json(number, item, self.seller_id)

    def _note_elements(self, record: Record, elements: set[str]) -> None:
        for name, text in record.values.items():
            if name not in elements:
                elements.add(name)
                _refuse_other_documents(name, record)
            if name in FIELD_OF_ELEMENT or name in FROM_THE_CATALOGUE or not text.strip():
                continue
            spelling = record.spelling[name]
            if spelling in self.unread:
                count, first = self.unread[spelling]
                self.unread[spelling] = (count + 1, first)
            elif len(self.unread) < MAX_NAMED:
                self.unread[spelling] = (1, str(_named(record)))

    def _entry(self, record: Record) -> LotEntry:
        if record.problem:
            raise InvalidItem(record.problem)
        said = _Fields(record, record.root in BSX_ROOTS)
        lot_id = said.integer("lot_id") or 0
        if lot_id < 0:
            raise InvalidItem("LOTID must not be negative")
        deletes = record.values.get("DELETE", "N").strip().upper() not in ("N", "NO")
        quantity = said.text("quantity") or ""
        names_item = said.has("item_type", "item_no")
        is_update = record.root not in BSX_ROOTS and (
            deletes or quantity[:1] in ("+", "-") or bool(lot_id and not names_item)
        )
        if not is_update and not self.is_update:
            fields = {**{name: _DEFAULTS[name] for name in self._omitted}, **said.all()}
            _check_required(fields, said)
            return LotEntry(record.number, record.line, lot_id, fields)
        if not lot_id:
            raise InvalidItem("an update needs the LOTID of the lot to change")
        change = None if deletes or not quantity else said.signed_quantity()
        fields = {} if deletes else said.all(without="quantity")
        return LotEntry(record.number, record.line, lot_id, fields, change, deletes, is_update=True)

    def _has_bare_ampersands(self) -> bool:
        self.file.seek(0)
        return self.file.read(2) not in (b"\xff\xfe", b"\xfe\xff") and self._count_repairs() > 0

    def _count_repairs(self) -> int:
        self.file.seek(0)
        repairs = Repairs()
        try:
            for _ in read_xml(self.file, repairs):
                pass
        except NotWellFormed:
            return 0
        return repairs.count

    def _explained(self, problem: NotWellFormed) -> UnreadableFile:
        self.file.seek(0)
        start = self.file.read(4096)
        text = start.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
        heading = text.partition("\n")[0].lower()
        if not text:
            return UnreadableFile("The file is empty.")
        if start.startswith(b"PK\x03\x04"):
            return UnreadableFile("This is a ZIP archive, such as a BrickLink Studio model, and not an inventory.")
        if "boid" in heading:
            return UnreadableFile("This is a Brick Owl file: its item numbers are not BrickLink's.")
        if text.lower().startswith(("<html", "<!doctype html")):
            return UnreadableFile("This is a web page, not an inventory: log in and download the file again.")
        if not text.startswith("<") and ("," in heading or "\t" in heading or ";" in heading):
            return UnreadableFile(
                "This looks like a table (CSV) and is not well-formed XML: download the inventory as XML."
            )
        return problem


def _refuse_other_documents(name: str, record: Record) -> None:
    values = record.values
    if name in WANTED_LIST and "QTY" not in values:
        raise UnreadableFile(
            f"This is a wanted list ({record.spelling[name]} in item {record.number}): it says what a buyer looks for, "
            "not what a store has."
        )
    if name in SET_INVENTORY and not values.keys() & {"PRICE", "CONDITION", "LOTID"}:
        raise UnreadableFile(
            f"This is the inventory of a set in the catalogue ({record.spelling[name]} in item {record.number}), "
            "not of a store."
        )
    if name in BRICK_OWL:
        raise UnreadableFile("This is a Brick Owl file: its item numbers are not BrickLink's.")


def _is_excluded(record: Record) -> bool:
    return record.root in BSX_ROOTS and record.values.get("STATUS", "").strip() == "X"


def _named(record: Record) -> LotEntry:
    values = {FIELD_OF_ELEMENT[k]: text.strip()[:64] for k, text in record.values.items() if k in FIELD_OF_ELEMENT}
    lot_id = values.get("lot_id", "")
    fields = {name: values[name] for name in ("item_type", "item_no") if values.get(name)}
    if fields.get("item_type") in ITEM_TYPES:
        fields["item_type"] = ITEM_TYPES[fields["item_type"]]
    return LotEntry(record.number, record.line, int(lot_id) if re.fullmatch("[0-9]{1,18}", lot_id) else 0, fields)


def record_of_json(number: int, item: Mapping[str, Any], seller_id: str) -> Record:
    """Return an object of the API, or of `show lots --json`, as a record. Only the API's texts have HTML entities."""
    record = Record(number, None, "json")
    from_api = "inventory_id" in item
    flat = {key: value for key, value in item.items() if key not in ("item", "seller_id")}
    nested = item.get("item")
    if isinstance(nested, dict):
        record.add("ITEMTYPE", _json_text(nested.get("type")))
        record.add("ITEMID", _json_text(nested.get("no")))
    if item.get("seller_id") not in (None, seller_id):
        record.problem = "it belongs to another seller"
    for key, value in flat.items():
        name = FIELD_OF_JSON_KEY.get(key, key)
        if key in ("color_name", "date_created"):
            continue
        text = _json_text(value)
        record.add(name, html.unescape(text) if from_api and name in ("DESCRIPTION", "REMARKS") else text)
        record.spelling[name.upper()] = key
    return record


def _json_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Y" if value else "N"
    return value if isinstance(value, str) else str(value)


class InvalidItem(Exception):
    """One item of a file says something that no lot can be; the message starts with the element."""


def _check_required(fields: Mapping[str, Any], said: _Fields) -> None:
    for name in REQUIRED_FIELDS:
        if fields.get(name) is None:
            raise InvalidItem(f"{said.spelled(name)} is missing")
    if fields["item_type"] in COLORED_TYPES and fields.get("color_id") is None:
        raise InvalidItem(
            f"{said.spelled('color_id')} is missing: a {fields['item_type']} is another item in each colour "
            "(0 is BrickLink's number for no colour)"
        )


class _Fields:
    def __init__(self, record: Record, is_bsx: bool) -> None:
        self._record, self._is_bsx = record, is_bsx
        self._elements: dict[str, str] = {}
        for element, text in record.values.items():
            name = FIELD_OF_ELEMENT.get(element)
            if name is None:
                continue
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
        if element:
            return self._record.spelling[element]
        return next(element for element, field_name in FIELD_OF_ELEMENT.items() if field_name == name)

    def text(self, name: str) -> str | None:
        element = self._elements.get(name)
        return None if element is None else self._record.values[element].strip()

    def integer(self, name: str) -> int | None:
        text = (self.text(name) or "").replace(",", "")  # downloads group thousands: 1,752
        if not text:
            return None
        if not re.fullmatch(r"-?[0-9]{1,19}", text):
            raise InvalidItem(f"{self.spelled(name)} must be a whole number")
        return int(text)

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
                value = _CONVERTERS[name](self, name)
                if value is not _NOT_SAID:
                    fields[name] = value
        fields |= self._stockroom()
        if not without and any(name in fields for name in TIER_FIELDS):  # the six go together, except in an update
            fields = {**{name: _DEFAULTS[name] for name in TIER_FIELDS}, **fields}
        if any(_NOT_STORABLE.search(text) for text in fields.values() if isinstance(text, str)):
            raise InvalidItem("a text has a character that cannot be stored")
        return fields

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


_NOT_SAID = object()
_GROUPED = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


def _amount(fields: _Fields, name: str) -> Any:
    text = fields.text(name) or ""
    if not text:
        return _NOT_SAID if name == "unit_price" else None
    amount = parse_amount(text)
    if amount is None:
        raise InvalidItem(f"{fields.spelled(name)} must be an amount such as 0.25")
    return abs(amount) if amount.is_zero() else amount


def _cost(fields: _Fields, name: str) -> Any:
    return _amount(fields, name) or None  # 0 stands for none


def _number(default: Any) -> Callable[[_Fields, str], Any]:
    def convert(fields: _Fields, name: str) -> Any:
        number = fields.integer(name)
        return default if number is None else number

    return convert


def _bulk(fields: _Fields, name: str) -> Any:
    return fields.integer(name) or 1


def _verbatim(fields: _Fields, name: str) -> Any:
    return fields._record.values[fields._elements[name]]


def _item_type(fields: _Fields, name: str) -> Any:
    text = fields.text(name) or ""
    if not text:
        return _NOT_SAID
    item_type = ITEM_TYPES.get(text.upper(), text)
    if len(item_type) == 1:
        raise InvalidItem(f"{fields.spelled(name)} must be one of {', '.join(ITEM_TYPES)}")
    return item_type


def _code(codes: Mapping[str, str | None], empty: Any) -> Callable[[_Fields, str], Any]:
    def convert(fields: _Fields, name: str) -> Any:
        text = (fields.text(name) or "").upper()
        if not text:
            return empty
        if text not in codes:
            raise InvalidItem(f"{fields.spelled(name)} must be one of {', '.join(codes)}")
        return codes[text]

    return convert


def _retain(fields: _Fields, name: str) -> Any:
    text = (fields.text(name) or "").upper()
    if text not in ("", "Y", "N"):
        raise InvalidItem(f"{fields.spelled(name)} must be Y or N")
    return text == "Y" or (text == "" and fields._is_bsx)


_CONVERTERS: dict[str, Callable[[_Fields, str], Any]] = {
    "item_type": _item_type,
    "item_no": lambda fields, name: fields.text(name),
    "color_id": _number(_NOT_SAID),
    "quantity": _number(_NOT_SAID),
    "unit_price": _amount,
    "new_or_used": _code({"N": "N", "U": "U"}, _NOT_SAID),
    "completeness": _code(COMPLETENESS, None),
    "bulk": _bulk,
    "sale_rate": _number(0),
    "description": _verbatim,
    "remarks": _verbatim,
    "is_retain": _retain,
    "reserved_for": lambda fields, name: fields.text(name) or None,
    "my_cost": _cost,
    "my_weight": _cost,
    "bind_id": _number(0),
    **{name: _number(0) if "quantity" in name else _amount for name in TIER_FIELDS},
}


def item_fields(record: Record) -> tuple[int, dict[str, Any]]:
    """Return the lot number (0: none) and the fields of an order's item. Raises `InvalidItem`."""
    if record.problem:
        raise InvalidItem(record.problem)
    said = _Fields(record, is_bsx=False)
    fields = said.all()
    _check_required(fields, said)
    return said.integer("lot_id") or 0, fields


def parse_amount(text: str) -> Decimal | None:
    """Parse an amount, rounded half up to four decimals; None if it is none. Downloads group thousands: 1,752.50."""
    text = text.replace(",", "") if _GROUPED.fullmatch(text) else text
    try:
        # BrickStore writes binary fractions such as 0.0399999991.
        amount = Decimal(text).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP) if len(text) <= 40 else None
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None


def unread_reason(element: str) -> str:
    return LEFT_OUT.get(element.upper(), "no field of a lot is known by this name")
