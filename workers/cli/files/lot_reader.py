"""Reader of inventory files: BrickLink's XML and JSON, and the BSX of BrickStore, BrickStock and BrickSync."""

from __future__ import annotations

import contextlib
import html
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from policies.lot_imports import BadEntry, LotEntry
from policies.lots import FIRST_UNWIND_LOT_ID, Lot, is_marketplace_number, plain_lot_key
from workers.cli.files.item_fields import InvalidItem, ItemFields
from workers.cli.files.lot_elements import (
    ELEMENT_OF_JSON_KEY,
    ELEMENTS,
    FIELD_OF_ELEMENT,
    FROM_THE_CATALOGUE,
    ITEM_TYPES,
    LEFT_OUT_ELEMENTS,
    OMITTED_BY_BRICKSTORE,
    OMITTED_BY_BRICKSYNC,
    ONLY_BRICKSTORE,
    ONLY_BRICKSYNC,
)
from workers.cli.files.records import read_records, refuse_other_documents
from workers.cli.files.xml_records import BSX_ROOTS, Record, UnreadableFile, XmlRepairs

# More than the largest stores have. Without this limit 56 MB of empty items took two minutes and 1.3 GB to refuse.
MAX_ITEMS = 200_000


@dataclass(slots=True)
class LotFile:
    """A file of lots, which is read more than once. `inspect` comes first: it finds out which program wrote it.

    `unread` are elements with a value that are not read: how often they occur, and where first. `more_unread` counts
    those that are too many to name.
    """

    file: BinaryIO
    seller_id: str
    is_update: bool = False
    items: int = 0
    excluded: int = 0
    on_item: Callable[[int], None] = field(default=lambda _number: None)
    """Called for each item that `inspect` reads."""
    unread: dict[str, tuple[int, str]] = field(default_factory=dict)
    more_unread: int = 0
    repairs: XmlRepairs = field(default_factory=XmlRepairs)
    first_update: LotEntry | None = None
    _omitted: Sequence[str] = ()
    _numbers: dict[int, int] = field(default_factory=dict)
    """Positions of the items by lot number."""
    _own_items: dict[int, int] = field(default_factory=dict)
    """Hashes of the keys of the items whose number Unwind gave, by number."""

    def inspect(self) -> Iterator[BadEntry]:
        """Read the file once; yield its invalid items, also those with a number that stands twice in the file."""
        lines = array("Q", [0])
        elements: set[str] = set()
        is_bsx = names_currency = False
        for record in self._lot_records():
            is_bsx, names_currency = record.root in BSX_ROOTS, "Currency" in record.container
            self.items += 1
            self.on_item(self.items)
            lines.append(record.line or 0)
            if self.items > MAX_ITEMS:
                raise UnreadableFile(f"The file has more than {MAX_ITEMS:,} items; import it in parts.")
            if _is_excluded_lot(record):
                self.excluded += 1
                continue
            self._note_elements(record, elements)
            try:
                entry = self._lot_entry(record)
            except InvalidItem as problem:
                named = _name_unread_item(record)
                if named.lot_id:
                    self._numbers.setdefault(named.lot_id, named.number)
                yield BadEntry(named, str(problem))
                continue
            if entry.is_update and self.first_update is None:
                self.first_update = entry
            first = self._numbers.setdefault(entry.lot_id, entry.number) if entry.lot_id else entry.number
            if first != entry.number:
                place = f"item {first} (line {lines[first]})" if lines[first] else f"item {first}"
                yield BadEntry(entry, f"lot {entry.lot_id} is also {place}; each lot may stand in a file once")
            elif entry.lot_id >= FIRST_UNWIND_LOT_ID and not entry.is_update:
                self._own_items[entry.lot_id] = hash(plain_lot_key(entry.key(self.seller_id)))
        if is_bsx:
            by_brickstore = elements & ONLY_BRICKSTORE or names_currency
            is_certain = by_brickstore and not elements & ONLY_BRICKSYNC
            self._omitted = OMITTED_BY_BRICKSTORE if is_certain else OMITTED_BY_BRICKSYNC

    def entries(self) -> Iterator[LotEntry]:
        for record in self._lot_records():
            if not _is_excluded_lot(record):
                with contextlib.suppress(InvalidItem):
                    yield self._lot_entry(record)

    def names(self, lot: Lot) -> bool:
        if lot.lot_id not in self._numbers:
            return False
        return is_marketplace_number(lot.lot_id) or self._own_items.get(lot.lot_id) == hash(plain_lot_key(lot.key))

    def _lot_records(self) -> Iterator[Record]:
        self.repairs = XmlRepairs()
        for record in read_records(self.file, self.repairs, partial(record_of_json, seller_id=self.seller_id)):
            if record.root in ("ORDERS", "ORDER"):
                raise UnreadableFile("This is an order download, not an inventory: `import-orders` reads it.")
            yield record

    def _note_elements(self, record: Record, elements: set[str]) -> None:
        is_custom = not record.values.get("ITEMID", "?").strip()
        for name, text in record.values.items():
            if name not in elements:
                elements.add(name)
                refuse_other_documents(name, record)
            if name in FIELD_OF_ELEMENT or not text.strip():
                continue
            if name in FROM_THE_CATALOGUE and not (is_custom and name in LEFT_OUT_ELEMENTS):
                continue
            spelling = record.spelling[name]
            if spelling in self.unread:
                count, first = self.unread[spelling]
                self.unread[spelling] = (count + 1, first)
            elif len(self.unread) < 20:  # as many are named in a report
                self.unread[spelling] = (1, str(_name_unread_item(record)))
            else:
                self.more_unread += 1

    def _lot_entry(self, record: Record) -> LotEntry:
        given = ItemFields(record, record.root in BSX_ROOTS)
        lot_id = given.integer("lot_id") or 0
        if lot_id < 0:
            raise InvalidItem("LOTID must not be negative")
        deletes = record.values.get("DELETE", "N").strip().upper() not in ("N", "NO")
        quantity = given.text("quantity") or ""
        names_item = given.text("item_type") is not None or given.text("item_no") is not None
        is_update = record.root not in BSX_ROOTS and (
            deletes or quantity[:1] in ("+", "-") or bool(lot_id and not names_item)
        )
        if not is_update and not self.is_update:
            fields = {**{name: ELEMENTS[name].empty for name in self._omitted}, **given.all()}
            given.check_required(fields)
            return LotEntry(record.number, record.line, lot_id, fields)
        if not lot_id:
            raise InvalidItem("an update needs the LOTID of the lot to change")
        change = None if deletes or not quantity else given.signed_quantity()
        fields = {} if deletes else given.all(without="quantity")
        return LotEntry(record.number, record.line, lot_id, fields, change, deletes, is_update=True)


def _is_excluded_lot(record: Record) -> bool:
    return record.root in BSX_ROOTS and record.values.get("STATUS", "").strip() == "X"


def _name_unread_item(record: Record) -> LotEntry:
    values = {FIELD_OF_ELEMENT[k]: text.strip()[:64] for k, text in record.values.items() if k in FIELD_OF_ELEMENT}
    lot_id = values.get("lot_id", "")
    fields = {name: values[name] for name in ("item_type", "item_no") if values.get(name)}
    if fields.get("item_type") in ITEM_TYPES:
        fields["item_type"] = ITEM_TYPES[fields["item_type"]]
    return LotEntry(record.number, record.line, int(lot_id) if re.fullmatch("[0-9]{1,18}", lot_id) else 0, fields)


def record_of_json(number: int, item: Mapping[str, Any], seller_id: str) -> Record:
    if "date_ordered" in item or "order_id" in item:
        raise UnreadableFile("These are orders, not lots: `import-orders` reads them.")
    record = Record(number, None, "json")
    from_api = "inventory_id" in item
    nested = item.get("item")
    if isinstance(nested, dict):
        record.add("ITEMTYPE", _lot_record_text(nested.get("type")))
        record.add("ITEMID", _lot_record_text(nested.get("no")))
    elif nested is not None:
        record.problem = "item must be an object with type and no"
    if item.get("seller_id") not in (None, seller_id):
        record.problem = "it belongs to another seller"
    for key, value in item.items():
        if key in ("item", "seller_id", "color_name", "date_created"):
            continue
        name = ELEMENT_OF_JSON_KEY.get(key, key)
        if isinstance(value, (dict, list)):
            record.nested.add(name.upper())
        text = _lot_record_text(value)
        record.add(name, html.unescape(text) if from_api and name in ("DESCRIPTION", "REMARKS") else text)
        record.spelling[name.upper()] = key
    return record


def _lot_record_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Y" if value else "N"
    return str(value)
