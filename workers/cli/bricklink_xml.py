"""How does a seller's own inventory file become lots, and lots a file again?

Two shapes are read: the XML that BrickLink's mass upload takes and its download gives (`INVENTORY`, `ITEM`), and
BrickStore's BSX (`BrickStoreXML`, `Inventory`, `Item`).  The first is also written.  Files come from strangers: entities,
document types with content, external references and anything too large, too deep or badly encoded are refused with a
sentence before a single lot is taken, and no tree is ever built.
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
"""More than the largest stores hold; without it 56 MB of empty items took two minutes and 1.3 GB to refuse."""
MAX_TEXT_LENGTH = 10_000
MAX_DEPTH = 16
"""Elements within elements.  Both shapes need four; BSX files carry the settings of their editor below that."""
PIECE = 1024 * 1024
"""Some parsers read an unfinished tag again with each piece: 60 MB of one attribute took 44 s in pieces of 64 KB."""

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
_LETTERS = {word: letter for letter, word in ITEM_TYPES.items()}
COMPLETENESS = {"C": "C", "I": "B", "B": "B", "S": "S", "M": "S"}
"""Files say I for incomplete where the API says B, and BSX still says M (mint in sealed box) for sealed."""

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
"""BSX's own names.  Its weight is that of all units together, from the catalogue, and says nothing of the seller's own."""

_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class NotAnInventory(Exception):
    """The file as a whole cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class BadItem:
    """One item of the file that is no lot: the how manieth, and why."""

    number: int
    why: str

    def __str__(self) -> str:
        return f"item {self.number}: {self.why}"


def read_lots(file: BinaryIO, seller_id: str) -> Iterator[Lot | BadItem]:
    """The lots of a seller's file and the items that are none, as they come.  A lot without a number gets 0.

    Raises `NotAnInventory`; a bad item spoils only itself.
    """
    for number, fields in enumerate(_items(file), start=1):
        if number > MAX_ITEMS:
            raise NotAnInventory(f"The file has more than {MAX_ITEMS:,} items; import it in parts.")
        if fields.get("STATUS") == "X":  # BrickStore: excluded
            continue
        try:
            yield _lot(fields, seller_id)
        except _Unfit as unfit:
            yield BadItem(number, str(unfit))


def write_lots(lots: Iterable[Lot]) -> Iterator[str]:
    """The lots as BrickLink's XML, line by line."""
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<INVENTORY>\n'
    for lot in lots:
        inside = "".join(f"<{name}>{escape(_visible(value))}</{name}>" for name, value in _fields(lot))
        yield f" <ITEM>{inside}</ITEM>\n"
    yield "</INVENTORY>\n"


class _Unfit(Exception):
    """An item that is no lot."""


class _Collector:
    """Takes the parser's events and keeps the texts of one item at a time."""

    def __init__(self) -> None:
        self.done: list[dict[str, str]] = []
        self._path: list[str] = []
        self._item: dict[str, str] | None = None
        self._names: Mapping[str, str] | None = None
        self._depth_of_item = 0
        self._text: list[str] = []
        self._length = 0

    def start(self, tag: str, _attributes: Mapping[str, str]) -> None:
        if not self._path:
            self._begin(tag)
        self._path.append(tag)
        if len(self._path) > MAX_DEPTH:
            raise NotAnInventory(f"Elements lie more than {MAX_DEPTH} deep within one another.")
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
        """The document is over."""

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
    """Hardened, and allows the one document type that BrickStore itself writes: a bare `<!DOCTYPE BrickStoreXML>`."""

    def defused_start_doctype_decl(
        self, name: str, sysid: str | None, pubid: str | None, has_internal_subset: int
    ) -> None:
        if name not in ("BrickStoreXML", "BrickStockXML") or sysid or pubid or has_internal_subset:
            raise DTDForbidden(name, sysid, pubid)


def _items(file: BinaryIO) -> Iterator[dict[str, str]]:
    collector = _Collector()
    parser = _Parser(target=collector, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    size = 0
    try:
        while piece := file.read(PIECE):
            size += len(piece)
            if size > MAX_FILE_BYTES:
                raise NotAnInventory(f"The file is larger than {MAX_FILE_BYTES // 1024**2} MB.")
            parser.feed(piece)
            yield from collector.done
            collector.done.clear()
        parser.close()
    except (EntitiesForbidden, DTDForbidden, ExternalReferenceForbidden) as forbidden:
        what = "entities" if isinstance(forbidden, EntitiesForbidden) else "a document type of its own"
        raise NotAnInventory(f"The file brings {what}; no inventory needs that, and it is not read.") from None
    except (ParseError, ValueError, LookupError) as error:  # an unknown or a wrong encoding is one of these, too
        raise NotAnInventory(
            f"This is not well-formed XML, or not in the encoding that it names ({str(error)[:200]})."
        ) from None
    yield from collector.done


def _lot(fields: Mapping[str, str], seller_id: str) -> Lot:
    room = fields.get("STOCKROOMID") or None
    in_room = room is not None or fields.get("STOCKROOM") == "Y"
    tiers = {
        **{f"tier_quantity{n}": _whole(fields, f"TQ{n}", 0) for n in (1, 2, 3)},
        **{f"tier_price{n}": _amount(fields, f"TP{n}") for n in (1, 2, 3)},
    }
    lot = Lot(
        lot_id=_whole(fields, "LOTID", 0),
        seller_id=seller_id,
        item_type=_known(fields, "ITEMTYPE", ITEM_TYPES),
        item_no=_there(fields, "ITEMID"),
        color_id=_whole(fields, "COLOR", 0),
        quantity=_whole(fields, "QTY", 0),
        new_or_used=_known(fields, "CONDITION", {"N": "N", "U": "U"}),
        unit_price=_amount(fields, "PRICE") or Decimal(0),
        completeness=_known(fields, "SUBCONDITION", COMPLETENESS) if fields.get("SUBCONDITION") else None,
        description=fields.get("DESCRIPTION", ""),
        remarks=fields.get("REMARKS", ""),
        bulk=_whole(fields, "BULK", 1) or 1,
        is_retain=fields.get("RETAIN") == "Y",
        is_stock_room=in_room,
        stock_room_id=(room or SOLD_OUT_STOCKROOM) if in_room else None,
        my_cost=_amount(fields, "MYCOST") or None,
        my_weight=_amount(fields, "MYWEIGHT") or None,
        sale_rate=_whole(fields, "SALE", 0),
        tiers=parse_tiers(tiers),
        reserved_for=fields.get("BUYERUSERNAME") or fields.get("RESERVED") or None,
    )
    if wrong := [*_out_of_range(lot), *find_lot_problems(lot), *find_tier_gaps(tiers)]:
        raise _Unfit("; ".join(f"{name} {sentence}" for name, sentence in wrong))
    return lot


def _out_of_range(lot: Lot) -> list[tuple[str, str]]:
    limits = {"lot_id": (lot.lot_id, 2**63 - 1), "color_id": (lot.color_id, 2**31 - 1)}
    found = [(name, "is not a possible number") for name, (value, most) in limits.items() if not 0 <= value <= most]
    texts = {"item_no": lot.item_no, "reserved_for": lot.reserved_for or ""}
    found += [(name, "must not be longer than 64 characters") for name, text in texts.items() if len(text) > 64]
    return found


def _there(fields: Mapping[str, str], name: str) -> str:
    if not fields.get(name):
        raise _Unfit(f"{name} is missing")
    return fields[name]


def _known(fields: Mapping[str, str], name: str, words: Mapping[str, str]) -> str:
    word = words.get(_there(fields, name).upper())
    if word is None:
        raise _Unfit(f"{name} must be one of {', '.join(words)}")
    return word


def _whole(fields: Mapping[str, str], name: str, default: int) -> int:
    text = fields.get(name, "").replace(",", "")  # downloads of orders group thousands: 1,752
    if not text:
        return default
    if not re.fullmatch(r"-?[0-9]{1,19}", text):
        raise _Unfit(f"{name} must be a whole number")
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
        raise _Unfit(f"{name} must be an amount such as 0.25")
    return amount


def _fields(lot: Lot) -> list[tuple[str, str]]:
    found: list[tuple[str, object]] = [
        ("LOTID", lot.lot_id),
        ("ITEMTYPE", _LETTERS.get(lot.item_type, lot.item_type)),
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
        found += [(f"TQ{number}", quantity), (f"TP{number}", f"{price:.4f}")]
    return [(name, str(value)) for name, value in found if value is not None]


def _visible(text: str) -> str:
    """What XML cannot hold at all is shown as the replacement character instead of spoiling the file."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def with_quantities(lots: Iterable[Lot], units: Mapping[int, int]) -> Iterator[Lot]:
    """Of these lots those named in `units`, with that many units, or as many of them as were not sold again since."""
    some = ((lot, min(units.get(lot.lot_id, 0), lot.quantity)) for lot in lots)
    return (replace(lot, quantity=quantity) for lot, quantity in some if quantity > 0)
