"""Reader and writer of inventory files.

Two formats are read: the XML of BrickLink's mass upload and download (`INVENTORY`, `ITEM`), and BrickStore's BSX
(`BrickStoreXML`, `Inventory`, `Item`). The first is also written. Files are untrusted: entities, document types with
content, external references and anything too large, too deep or badly encoded are refused with a sentence, and no tree
is ever built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import BinaryIO
from xml.sax.saxutils import escape

from defusedxml.common import DTDForbidden, EntitiesForbidden, ExternalReferenceForbidden
from defusedxml.ElementTree import DefusedXMLParser, ParseError

from policies.lots import SOLD_OUT_STOCKROOM, Lot, find_lot_problems, find_tier_gaps, parse_tiers

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ITEMS = 200_000
"""More than the largest stores have. Without this limit 56 MB of empty items took two minutes and 1.3 GB to refuse."""
MAX_TEXT_LENGTH = 10_000
MAX_DEPTH = 16
"""Levels of nested elements. Both formats need four; BSX files have their editor's settings below that."""
CHUNK_BYTES = 1024 * 1024
"""Some parsers rescan an unfinished tag with each chunk: 60 MB of one attribute took 44 s in chunks of 64 KB."""

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
_TYPE_LETTERS = {item_type: letter for letter, item_type in ITEM_TYPES.items()}
COMPLETENESS = {"C": "C", "I": "B", "B": "B", "S": "S", "M": "S"}
"""Files write I for incomplete where the API writes B, and BSX writes M (mint in sealed box) for sealed."""

FROM_BSX = {
    "ItemID": "ITEMID",
    "ItemTypeID": "ITEMTYPE",
    "ColorID": "COLOR",
    "Qty": "QTY",
    "Price": "PRICE",
    "Condition": "CONDITION",
    "SubCondition": "SUBCONDITION",
    "Bulk": "BULK",
    "Sale": "SALE",
    "Comments": "DESCRIPTION",
    "Remarks": "REMARKS",
    "Retain": "RETAIN",
    "Stockroom": "STOCKROOMID",
    "Reserved": "BUYERUSERNAME",
    "LotID": "LOTID",
    "Cost": "MYCOST",
    "Status": "STATUS",
    **{f"T{kind}{n}": f"T{kind}{n}" for kind in "QP" for n in (1, 2, 3)},
}
"""BSX's names. Its weight is left out: it is the catalogue's, for all units together, and not the seller's own."""

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class NotAnInventory(Exception):
    pass


@dataclass(frozen=True, slots=True)
class BadItem:
    number: int
    reason: str

    def __str__(self) -> str:
        return f"item {self.number}: {self.reason}"


def read_lots(file: BinaryIO, seller_id: str) -> Iterator[Lot | BadItem]:
    """Yield the lots of a seller's file and its invalid items, in order. A lot without a number gets 0.

    Raises `NotAnInventory`; an invalid item does not affect the others.
    """
    for number, fields in enumerate(_items(file), start=1):
        if number > MAX_ITEMS:
            raise NotAnInventory(f"The file has more than {MAX_ITEMS:,} items; import it in parts.")
        if fields.get("STATUS") == "X":  # BrickStore: excluded
            continue
        try:
            yield _lot(fields, seller_id)
        except _InvalidItem as problem:
            yield BadItem(number, str(problem))


def write_lots(lots: Iterable[Lot]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<INVENTORY>\n'
    for lot in lots:
        elements = "".join(
            f"<{name}>{escape(_replace_invalid_characters(value))}</{name}>" for name, value in _fields(lot)
        )
        yield f" <ITEM>{elements}</ITEM>\n"
    yield "</INVENTORY>\n"


class _InvalidItem(Exception):
    pass


class _ItemCollector:
    def __init__(self) -> None:
        self.done: list[dict[str, str]] = []
        self._path: list[str] = []
        self._item: dict[str, str] | None = None
        self._names: Mapping[str, str] | None = None
        self._text: list[str] = []
        self._length = 0

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        if not self._path:
            self._begin(tag)
        self._path.append(tag)
        if len(self._path) > MAX_DEPTH:
            raise NotAnInventory(f"Elements are nested more than {MAX_DEPTH} deep.")
        if self._path == self._item_path:
            self._item = {}
        self._text, self._length = [], 0

    def data(self, text: str) -> None:
        if self._item is None or len(self._path) != len(self._item_path) + 1:
            return
        self._length += len(text)
        if self._length > MAX_TEXT_LENGTH:
            raise NotAnInventory(f"A text is longer than {MAX_TEXT_LENGTH} characters.")
        self._text.append(text)

    def end(self, tag: str) -> None:
        if self._item is not None and self._path == self._item_path:
            self.done.append(self._item)
            self._item = None
        elif self._item is not None and len(self._path) == len(self._item_path) + 1:
            name = tag.upper() if self._names is None else self._names.get(tag)
            if name is not None:
                # BSX marks a retained lot by an empty element.
                self._item[name] = "Y" if tag == "Retain" else "".join(self._text).strip()
        self._path.pop()

    def close(self) -> None:
        # Required of a parser target.
        ...

    def _begin(self, tag: str) -> None:
        if tag == "INVENTORY":
            self._item_path = ["INVENTORY", "ITEM"]
        elif tag in ("BrickStoreXML", "BrickStockXML"):
            self._item_path, self._names = [tag, "Inventory", "Item"], FROM_BSX
        else:
            raise NotAnInventory(
                "This is neither a BrickLink inventory (INVENTORY) nor a BrickStore file (BrickStoreXML)."
            )


class _Parser(DefusedXMLParser):
    # Allows the one document type that BrickStore writes: a bare `<!DOCTYPE BrickStoreXML>`.

    def defused_start_doctype_decl(
        self, name: str, sysid: str | None, pubid: str | None, has_internal_subset: int
    ) -> None:
        if name not in ("BrickStoreXML", "BrickStockXML") or sysid or pubid or has_internal_subset:
            raise DTDForbidden(name, sysid, pubid)


def _items(file: BinaryIO) -> Iterator[dict[str, str]]:
    collector = _ItemCollector()
    parser = _Parser(target=collector, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    size = 0
    try:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            if size > MAX_FILE_BYTES:
                raise NotAnInventory(f"The file is larger than {MAX_FILE_BYTES // 1024**2} MB.")
            parser.feed(chunk)
            yield from collector.done
            collector.done.clear()
        parser.close()
    except (EntitiesForbidden, DTDForbidden, ExternalReferenceForbidden) as forbidden:
        forbidden_part = "entities" if isinstance(forbidden, EntitiesForbidden) else "a document type"
        raise NotAnInventory(f"The file defines {forbidden_part}, which no inventory needs, and is not read.") from None
    except (ParseError, ValueError, LookupError) as error:  # includes an unknown or a wrong encoding
        raise NotAnInventory(
            f"This is not well-formed XML, or not in the encoding that it declares ({str(error)[:200]})."
        ) from None
    yield from collector.done


def _lot(fields: Mapping[str, str], seller_id: str) -> Lot:
    stockroom = fields.get("STOCKROOMID") or None
    in_room = stockroom is not None or fields.get("STOCKROOM") == "Y"
    tiers = {
        **{f"tier_quantity{n}": _integer(fields, f"TQ{n}", 0) for n in (1, 2, 3)},
        **{f"tier_price{n}": _amount(fields, f"TP{n}") for n in (1, 2, 3)},
    }
    lot = Lot(
        lot_id=_integer(fields, "LOTID", 0),
        seller_id=seller_id,
        item_type=_code(fields, "ITEMTYPE", ITEM_TYPES),
        item_no=_required(fields, "ITEMID"),
        color_id=_integer(fields, "COLOR", 0),
        quantity=_integer(fields, "QTY", 0),
        new_or_used=_code(fields, "CONDITION", {"N": "N", "U": "U"}),
        unit_price=_amount(fields, "PRICE") or Decimal(0),
        completeness=_code(fields, "SUBCONDITION", COMPLETENESS) if fields.get("SUBCONDITION") else None,
        description=fields.get("DESCRIPTION", ""),
        remarks=fields.get("REMARKS", ""),
        bulk=_integer(fields, "BULK", 1) or 1,
        is_retain=fields.get("RETAIN") == "Y",
        is_stock_room=in_room,
        stock_room_id=(stockroom or SOLD_OUT_STOCKROOM) if in_room else None,
        my_cost=_amount(fields, "MYCOST") or None,
        my_weight=_amount(fields, "MYWEIGHT") or None,
        sale_rate=_integer(fields, "SALE", 0),
        tiers=parse_tiers(tiers),
        reserved_for=fields.get("BUYERUSERNAME") or fields.get("RESERVED") or None,
    )
    if errors := [*_range_errors(lot), *find_lot_problems(lot), *find_tier_gaps(tiers)]:
        raise _InvalidItem("; ".join(f"{name} {sentence}" for name, sentence in errors))
    return lot


def _range_errors(lot: Lot) -> list[tuple[str, str]]:
    limits = {"lot_id": (lot.lot_id, 2**63 - 1), "color_id": (lot.color_id, 2**31 - 1)}
    errors = [(name, "is out of range") for name, (value, max_value) in limits.items() if not 0 <= value <= max_value]
    texts = {"item_no": lot.item_no, "reserved_for": lot.reserved_for or ""}
    errors += [(name, "must not be longer than 64 characters") for name, text in texts.items() if len(text) > 64]
    return errors


def _required(fields: Mapping[str, str], name: str) -> str:
    if not fields.get(name):
        raise _InvalidItem(f"{name} is missing")
    return fields[name]


def _code(fields: Mapping[str, str], name: str, codes: Mapping[str, str]) -> str:
    code = codes.get(_required(fields, name).upper())
    if code is None:
        raise _InvalidItem(f"{name} must be one of {', '.join(codes)}")
    return code


def _integer(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name, "").replace(",", "")  # downloads group thousands: 1,752
    if not text:
        return default
    if not re.fullmatch(r"-?[0-9]{1,19}", text):
        raise _InvalidItem(f"{name} must be a whole number")
    return int(text)


def _amount(fields: Mapping[str, str], name: str) -> Decimal | None:
    text = fields.get(name, "")
    if not text:
        return None
    try:
        # BrickStore writes binary fractions such as 0.0399999991.
        amount = Decimal(text).quantize(Decimal("0.0001"), rounding=ROUND_HALF_UP) if len(text) <= 40 else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite():
        raise _InvalidItem(f"{name} must be an amount such as 0.25")
    return amount


def _fields(lot: Lot) -> list[tuple[str, str]]:
    fields: list[tuple[str, object]] = [
        ("LOTID", lot.lot_id),
        ("ITEMTYPE", _TYPE_LETTERS.get(lot.item_type, lot.item_type)),
        ("ITEMID", lot.item_no),
        ("COLOR", lot.color_id),
        ("QTY", lot.quantity),
        ("PRICE", f"{lot.unit_price:.4f}"),
        ("CONDITION", lot.new_or_used),
        ("SUBCONDITION", "I" if lot.completeness == "B" else lot.completeness),
        ("BULK", lot.bulk if lot.bulk != 1 else None),
        ("SALE", lot.sale_rate or None),
        ("DESCRIPTION", lot.description or None),
        ("REMARKS", lot.remarks or None),
        ("RETAIN", "Y" if lot.is_retain else None),
        ("STOCKROOM", "Y" if lot.is_stock_room else None),
        ("STOCKROOMID", lot.stock_room_id),
        ("BUYERUSERNAME", lot.reserved_for),
        ("MYCOST", None if lot.my_cost is None else f"{lot.my_cost:.4f}"),
        ("MYWEIGHT", None if lot.my_weight is None else f"{lot.my_weight:.4f}"),
    ]
    for number, (quantity, price) in enumerate(lot.tiers, start=1):
        fields += [(f"TQ{number}", quantity), (f"TP{number}", f"{price:.4f}")]
    return [(name, str(value)) for name, value in fields if value is not None]


def _replace_invalid_characters(text: str) -> str:
    # Replace characters that XML cannot contain, which would make the file unreadable.
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def with_quantities(lots: Iterable[Lot], units: Mapping[int, int]) -> Iterator[Lot]:
    """The lots named in `units`, each with that quantity, or with what is left of it."""
    quantities = ((lot, min(units.get(lot.lot_id, 0), lot.quantity)) for lot in lots)
    return (replace(lot, quantity=quantity) for lot, quantity in quantities if quantity > 0)
