"""Writer of lots as BrickLink's XML: a whole store for re-import, items to upload, and updates of known lots."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from xml.sax.saxutils import escape

from policies.lots import Lot, is_marketplace_number
from policies.texts import replace_non_xml_characters
from workers.cli.files.lot_elements import ITEM_TYPES

_LINE_END = {"\r": "&#13;"}
_TYPE_LETTERS = {item_type: letter for letter, item_type in ITEM_TYPES.items()}
_ELEMENT_DEFAULTS = {
    "BULK": "1",
    "SALE": "0",
    "RETAIN": "N",
    "STOCKROOM": "N",
    "MYCOST": "0.0000",
    "MYWEIGHT": "0.0000",
}


def write_store(lots: Iterable[Lot]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield from _inventory({"LOTID": str(lot.lot_id), **_lot_elements(lot), "BINDID": str(lot.bind_id)} for lot in lots)


def write_upload(lots: Iterable[Lot]) -> Iterator[str]:
    """Yield the lots as BrickLink's mass upload takes them: no declaration, no number that BrickLink did not give."""
    return _inventory(map(_upload_elements, lots))


def write_updates(lots: Iterable[Lot]) -> Iterator[str]:
    return _inventory({"LOTID": str(lot.lot_id), "QTY": f"+{lot.quantity}"} for lot in lots)


def _inventory(items: Iterable[Mapping[str, str]]) -> Iterator[str]:
    yield "<INVENTORY>\n"
    for elements in items:
        parts = (
            f"<{name}>{escape(replace_non_xml_characters(text), _LINE_END)}</{name}>" if text else f"<{name}/>"
            for name, text in elements.items()
        )
        yield f" <ITEM>{''.join(parts)}</ITEM>\n"
    yield "</INVENTORY>\n"


def _upload_elements(lot: Lot) -> dict[str, str]:
    elements = {
        name: value
        for name, value in _lot_elements(lot).items()
        if value not in ("", _ELEMENT_DEFAULTS.get(name)) and (lot.tiers or name[:2] not in ("TQ", "TP"))
    }
    if not lot.has_catalogue_item:
        elements["ITEMID"] = ""
    return ({"LOTID": str(lot.lot_id)} if is_marketplace_number(lot.lot_id) else {}) | elements


def _lot_elements(lot: Lot) -> dict[str, str]:
    tiers = [*lot.tiers, (0, None), (0, None), (0, None)][:3]
    return {
        "ITEMTYPE": _TYPE_LETTERS.get(lot.item_type, lot.item_type),
        "ITEMID": lot.item_no,
        "COLOR": str(lot.color_id),
        "QTY": str(lot.quantity),
        "PRICE": f"{lot.unit_price:.4f}",
        "CONDITION": lot.new_or_used,
        "SUBCONDITION": {"B": "I"}.get(lot.completeness or "", lot.completeness or ""),
        "BULK": str(lot.bulk),
        "SALE": str(lot.sale_rate),
        "DESCRIPTION": lot.description,
        "REMARKS": lot.remarks,
        "RETAIN": "Y" if lot.is_retain else "N",
        "STOCKROOM": "Y" if lot.is_stock_room else "N",
        "STOCKROOMID": lot.stock_room_id or "",
        "BUYERUSERNAME": lot.reserved_for or "",
        "MYCOST": f"{lot.my_cost or 0:.4f}",
        "MYWEIGHT": f"{lot.my_weight or 0:.4f}",
        **{f"TQ{number}": str(quantity) for number, (quantity, _) in enumerate(tiers, start=1)},
        **{f"TP{number}": f"{price or 0:.4f}" for number, (_, price) in enumerate(tiers, start=1)},
    }
