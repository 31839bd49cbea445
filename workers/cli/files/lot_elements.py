"""The elements of lots in files: their fields, those left out, and those only some programs write."""

from __future__ import annotations

from policies.lots import TIER_FIELDS

_TIER_ELEMENTS = {f"T{part[0].upper()}{n}": f"tier_{part}{n}" for n in (1, 2, 3) for part in ("quantity", "price")}
assert set(_TIER_ELEMENTS.values()) == set(TIER_FIELDS)

FIELD_OF_ELEMENT: dict[str, str] = {
    "LOTID": "lot_id",
    "ITEMTYPE": "item_type",
    "ITEMTYPEID": "item_type",
    "ITEMID": "item_no",
    "COLOR": "color_id",
    "COLORID": "color_id",
    "QTY": "quantity",
    "PRICE": "unit_price",
    "CONDITION": "new_or_used",
    "SUBCONDITION": "completeness",
    "COMPLETENESS": "completeness",
    "BULK": "bulk",
    "SALE": "sale_rate",
    "DESCRIPTION": "description",
    "COMMENTS": "description",
    "REMARKS": "remarks",
    "RETAIN": "is_retain",
    "STOCKROOM": "is_stock_room",
    "STOCKROOMID": "stock_room_id",
    "BUYERUSERNAME": "reserved_for",
    "RESERVED": "reserved_for",
    "MYCOST": "my_cost",
    "COST": "my_cost",
    "MYWEIGHT": "my_weight",
    "TOTALWEIGHT": "my_weight",
    "BINDID": "bind_id",
    **_TIER_ELEMENTS,
}
"""Element names in capitals: BSX and BrickLink's XML differ in case only, apart from the synonyms here."""

ELEMENT_OF_FIELD = {field: element for element, field in reversed(FIELD_OF_ELEMENT.items())}
"""The first element of each field above, which BrickLink's XML has."""

FIELD_OF_JSON_KEY = {"inventory_id": "LOTID"} | {
    field: element for field, element in ELEMENT_OF_FIELD.items() if field not in ("item_type", "item_no")
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
