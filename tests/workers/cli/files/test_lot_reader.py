"""Tests of reading inventory files in XML and BSX: names of elements, flags, and invalid items. No database."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.workers.cli.files.samples import (
    BRICKLINK,
    BRICKSTORE,
    FIRST,
    SECOND,
    bsx_item,
    case,
    item,
    opened,
    problems,
    read,
)
from workers.cli.files import xml_records
from workers.cli.files.lot_elements import FIELD_OF_ELEMENT, FROM_THE_CATALOGUE, LEFT_OUT_ELEMENTS


def test_an_upload_file_of_the_marketplace_is_read() -> None:
    """All fields, thousands separators, tiers that are not there, I for incomplete."""
    assert read(BRICKLINK) == [FIRST, SECOND]


def test_a_brickstore_file_is_read() -> None:
    """Its own names, its bare document type, excluded items, binary fractions, M for sealed."""
    file, _, _ = opened(BRICKSTORE)
    first, second = read(BRICKSTORE)
    assert (first.lot_id, first.item_type, first.item_no, first.quantity) == (77, "PART", "3001", 4)
    assert (first.unit_price, first.my_cost) == (Decimal("0.0400"), Decimal("0.0100"))
    assert (first.is_retain, first.stock_room_id, first.description) == (True, "A", "Used <twice>")
    assert (second.completeness, second.reserved_for, second.my_weight) == ("S", "ann", None)
    assert (first.my_weight, file.excluded, file.unread) == (Decimal("2.3200"), 1, {})


@pytest.mark.parametrize(
    ("quantity", "total", "weight"),
    [(3, "6.9600", "2.3200"), (1, "0.0001", "0.0001"), (0, "0.0000", None), (7, "", None)],
)
def test_the_weight_of_one_unit_is_a_share_of_the_total(quantity: int, total: str, weight: str | None) -> None:
    """BrickStore writes the seller's own weight of all units; without units it says nothing."""
    content = bsx_item(f"<TotalWeight>{total}</TotalWeight>").replace("<Qty>1<", f"<Qty>{quantity}<")
    _, (entry,), _ = opened(content)
    assert entry.fields.get("my_weight") == (weight and Decimal(weight))
    assert ("my_weight" in entry.fields) == (weight is not None)


def test_bricksync_names_the_completeness_and_the_cost_of_sets_otherwise() -> None:
    """Without them an incomplete set was merged into the lot of complete ones when an order was cancelled."""
    _, entries, bad = case("bricksync_sets.bsx")
    lots = [entry.as_new_lot("s", entry.lot_id) for entry in entries]
    assert [(x.lot_id, x.completeness, x.my_cost) for x in lots] == [(7001, "B", Decimal("21.5000")), (7002, "C", None)]
    assert bad == []


_TIERS = " ".join(f"T{kind}{n}" for n in (1, 2, 3) for kind in "QP")
LOT_FILE_WRITERS: dict[str, tuple[str, str]] = {
    "BrickLink, mass upload": (
        "bricklink.com/help.asp?helpID=22",
        (
            "ITEMTYPE ITEMID COLOR CATEGORY QTY PRICE CONDITION SUBCONDITION BULK SALE DESCRIPTION REMARKS "
            f"RETAIN STOCKROOM STOCKROOMID BUYERUSERNAME MYCOST MYWEIGHT {_TIERS}"
        ),
    ),
    "BrickLink, mass update": (
        "bricklink.com/help.asp?helpID=251",
        (
            "LOTID DELETE QTY PRICE CONDITION SUBCONDITION BULK SALE DESCRIPTION REMARKS RETAIN STOCKROOM STOCKROOMID "
            f"MYCOST {_TIERS}"
        ),
    ),
    "BrickLink, store download": (
        "what rgriebl/brickstore src/bricklink/io.cpp (fromBrickLinkXML) reads of it",
        (
            "LOTID DATEADDED DATELASTSOLD ITEMTYPE ITEMID COLOR CATEGORY QTY PRICE CONDITION SUBCONDITION "
            "BULK SALE DESCRIPTION REMARKS RETAIN STOCKROOM STOCKROOMID BUYERUSERNAME MYCOST MYWEIGHT "
            f"ITEMWEIGHT IMAGE BASECURRENCYCODE {_TIERS}"
        ),
    ),
    "BrickStore, XML for BrickLink": (
        "rgriebl/brickstore src/bricklink/io.cpp (toBrickLinkXML, toBrickLinkUpdateXML)",
        (
            "LOTID DELETE ITEMID ITEMTYPE COLOR CATEGORY QTY PRICE CONDITION SUBCONDITION BULK SALE "
            f"DESCRIPTION REMARKS RETAIN STOCKROOM STOCKROOMID BUYERUSERNAME MYCOST MYWEIGHT {_TIERS}"
        ),
    ),
    "BrickStore and BrickStock, BSX": (
        "rgriebl/brickstore src/common/documentio.cpp (createBsxInventory, and what it reads of older files)",
        (
            "ItemID ItemTypeID ColorID ItemName ItemTypeName ColorName CategoryID CategoryName Status Qty "
            "Price Condition SubCondition Bulk Sale Cost Comments Remarks Reserved LotID Retain Stockroom "
            "TotalWeight MarkerText MarkerColor DateAdded DateLastSold DifferenceBaseValues OrigPrice OrigQty "
            f"{_TIERS}"
        ),
    ),
    "BrickSync, BSX": (
        "ZZJHONS/Bricksync bsx.c (bsxSaveInventory)",
        (
            "ItemID ItemTypeID ColorID ItemName ItemTypeName ColorName CategoryID CategoryName Status Qty "
            "Price SalePrice Bulk Sale AlternateID Condition UsedGrade Completeness OrigPrice Comments "
            f"Remarks OrigQty MyCost LotID OwlID OwlLotID {_TIERS}"
        ),
    ),
    "BrickSync, XML for BrickLink": (
        "ZZJHONS/Bricksync bsoutputxml.c",
        (
            "ITEMTYPE ITEMID CATEGORY COLOR PRICE QTY CONDITION SUBCONDITION BULK DESCRIPTION REMARKS MYCOST "
            f"LOTID DELETE STOCKROOM RETAIN {_TIERS}"
        ),
    ),
}
"""By program: where its source or its documentation says so, and the elements of an item."""


@pytest.mark.parametrize("program", LOT_FILE_WRITERS)
def test_every_element_that_a_program_writes_is_read_or_left_out_for_a_reason(program: str) -> None:
    _, elements = LOT_FILE_WRITERS[program]
    for element in elements.split():
        name = element.upper()
        assert name in FIELD_OF_ELEMENT or name in FROM_THE_CATALOGUE or name in LEFT_OUT_ELEMENTS, element


def test_an_unknown_element_with_a_value_is_reported_and_an_empty_one_is_not() -> None:
    file, _, _ = opened(item("<GRADE>7</GRADE><SHINE></SHINE><CATEGORY>5</CATEGORY>"))
    assert file.unread == {"GRADE": (1, "item 1 (line 1, PART 3001)")}


def test_unknown_elements_that_are_too_many_to_name_are_counted() -> None:
    file, _, _ = opened(item("".join(f"<X{n}>1</X{n}>" for n in range(25))))
    assert (len(file.unread), file.more_unread) == (20, 5)


def test_the_category_of_a_custom_item_is_not_in_the_catalogue() -> None:
    file, _, _ = case("custom_item.xml")
    assert file.unread == {"CATEGORY": (1, "item 2 (line 3, PART)")}


def test_a_field_with_other_elements_in_its_text_is_invalid() -> None:
    """What stands before and after them would be lost."""
    _, _, bad = opened(item("<REMARKS>see <b>box</b> 7</REMARKS>"))
    assert "REMARKS has other elements in its text" in str(bad[0])
    file, _, bad = opened(item("<PICTURES><URL>a</URL><URL>b</URL></PICTURES>"))
    assert (bad, list(file.unread)) == ([], ["PICTURES"])
    _, _, bad = opened(item("<ITEM><ITEMID>3002</ITEMID></ITEM>"))
    assert "another ITEM" in str(bad[0])


def test_two_names_of_one_field_must_not_contradict_each_other() -> None:
    _, _, bad = opened(bsx_item("<Cost>1</Cost><MyCost>2</MyCost>"))
    assert "Cost and MyCost say different things" in str(bad[0])
    _, _, bad = opened(item("<REMARKS>a</REMARKS><REMARKS>b</REMARKS>"))
    assert "REMARKS stands twice" in str(bad[0])
    assert read(bsx_item("<Cost></Cost><MyCost>2</MyCost>"))[0].my_cost == 2


def test_a_custom_item_is_read() -> None:
    """BrickLink's own sample of an upload has one; it has no number, and equals no other item."""
    _, entries, bad = case("custom_item.xml")
    lots = [entry.as_new_lot("s", entry.lot_id) for entry in entries]
    assert [(x.item_no, x.quantity, x.description) for x in lots] == [("3622", 50, ""), ("", 6, "Handmade sign")]
    assert (bad, [problems(entry) for entry in entries]) == ([], ["", ""])
    _, _, bad = opened(item("").replace("<ITEMID>3001</ITEMID>", ""))
    assert "ITEMID is missing" in str(bad[0])


@pytest.mark.parametrize(
    ("stockroom", "room"),
    [("<Stockroom/>", "A"), ("<Stockroom>C</Stockroom>", "C"), ("<Stockroom>N</Stockroom>", None), ("", None)],
)
def test_a_stockroom_of_brickstore_without_a_name_is_room_a(stockroom: str, room: str | None) -> None:
    (lot,) = read(bsx_item(stockroom))
    assert (lot.is_stock_room, lot.stock_room_id) == (room is not None, room)


@pytest.mark.parametrize(
    ("stockroom", "room"),
    [
        ("<STOCKROOM>Y</STOCKROOM>", "A"),
        ("<STOCKROOM>Y</STOCKROOM><STOCKROOMID>B</STOCKROOMID>", "B"),
        ("<STOCKROOMID>C</STOCKROOMID>", "C"),
        ("<STOCKROOM>N</STOCKROOM><STOCKROOMID/>", None),
        ("<STOCKROOM/>", None),
    ],
)
def test_a_stockroom_of_bricklink_is_a_flag_and_a_room(stockroom: str, room: str | None) -> None:
    (lot,) = read(item(stockroom))
    assert (lot.is_stock_room, lot.stock_room_id) == (room is not None, room)


def test_a_stockroom_that_contradicts_itself_is_invalid() -> None:
    _, _, bad = opened(item("<STOCKROOM>N</STOCKROOM><STOCKROOMID>B</STOCKROOMID>"))
    assert "STOCKROOM says no, but STOCKROOMID says B" in str(bad[0])


@pytest.mark.parametrize(
    ("retain", "retained"), [("<Retain/>", True), ("<Retain>Y</Retain>", True), ("<Retain>N</Retain>", False)]
)
def test_an_empty_retain_of_brickstore_is_yes_and_n_is_no(retain: str, retained: bool) -> None:
    assert read(bsx_item(retain))[0].is_retain is retained


def test_an_empty_retain_of_bricklink_is_no() -> None:
    assert [read(item(f"<RETAIN>{x}</RETAIN>"))[0].is_retain for x in ("", "N", "Y")] == [False, False, True]
    _, _, bad = opened(item("<RETAIN>maybe</RETAIN>"))
    assert "RETAIN must be one of Y, N" in str(bad[0])


def test_the_flags_of_the_case_mean_what_brickstore_means() -> None:
    _, entries, _ = case("stockroom_and_retain.bsx")
    first, second = (entry.as_new_lot("s", entry.lot_id) for entry in entries)
    assert (first.is_stock_room, first.stock_room_id, second.is_retain) == (True, "A", False)


def test_a_part_without_a_colour_and_a_duplicate_lot_are_invalid() -> None:
    _, _, bad = case("part_without_colour.xml")
    assert [str(problem) for problem in bad] == [
        (
            "item 1 (line 2, lot 8401, PART 3001): COLOR is missing: a PART is another item in each colour "
            "(0 is BrickLink's number for no colour)"
        ),
        "item 3 (line 4, lot 8402, PART 3002): lot 8402 is also item 2 (line 3); each lot may stand in a file once",
    ]


def test_a_bare_ampersand_is_read_as_one_and_counted() -> None:
    """BrickLink writes them itself. References and CDATA are left alone, also across chunks."""
    file, entries, bad = case("bare_ampersand.xml")
    assert (entries[0].fields["remarks"], bad) == ("Box & lid", [])
    assert (file.repairs.count, file.repairs.first_line) == (1, 2)
    text = "a & b &amp; c &#38; <![CDATA[d & e]]> & f"
    file, entries, _ = opened(item(f"<REMARKS>{text}</REMARKS>"))
    assert (entries[0].fields["remarks"], file.repairs.count) == ("a & b & c & d & e & f", 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_an_ampersand_in_a_comment_is_none_to_repair(encoding: str) -> None:
    text = item("<REMARKS>a &amp; b</REMARKS><!-- c & d -->")
    file, entries, bad = opened(f'<?xml version="1.0" encoding="{encoding[:6]}"?>{text}'.encode(encoding))
    assert (entries[0].fields["remarks"], file.repairs.count, bad) == ("a & b", 0, [])


@pytest.mark.parametrize(
    ("text", "read", "repaired"),
    [
        ("<![CDATA[new --> here & there]]>", "new --> here & there", 0),
        ("<!-- ]]> a & b -->c", "c", 0),
        ("<?x a & b ?>c", "c", 0),
        ("<?x <!-- ?>a & b", "a & b", 1),
        ("<![CDATA[<!--]]>a & b", "<!--a & b", 1),
    ],
)
def test_an_ampersand_is_repaired_only_where_it_begins_a_reference(text: str, read: str, repaired: int) -> None:
    file, entries, bad = opened(item(f"<REMARKS>{text}</REMARKS>"))
    assert (entries[0].fields["remarks"], file.repairs.count, bad) == (read, repaired, [])


@pytest.mark.parametrize("size", range(1, 40))
def test_bare_ampersands_are_repaired_wherever_a_chunk_ends(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(xml_records, "CHUNK_BYTES", size)
    text = "a & b &amp; c <![CDATA[d & e]]>]]&gt;&&f"
    file, entries, _ = opened(item(f"<REMARKS>{text}</REMARKS>"))
    assert (entries[0].fields["remarks"], file.repairs.count) == ("a & b & c d & e]]>&&f", 3)


@pytest.mark.parametrize(
    ("name", "update"),
    [("mass_update.xml", "item 1 (line 2, lot 8001)"), ("delete_flag.xml", "item 1 (line 2, lot 8002)")],
)
def test_a_mass_update_is_recognized(name: str, update: str) -> None:
    file, _, _ = case(name)
    assert str(file.first_update) == update


def test_the_entries_of_a_mass_update() -> None:
    """A sign is required, as BrickLink requires it; DELETE deletes, also when it is empty, as BrickStore writes it."""
    _, (change, delete), bad = case("mass_update.xml", update=True)
    assert (change.lot_id, change.quantity_change, change.deletes, dict(change.fields)) == (8001, -3, False, {})
    assert (delete.lot_id, delete.quantity_change, delete.deletes, bad) == (8002, None, True, [])
    _, (delete,), _ = opened("<INVENTORY><ITEM><LOTID>5</LOTID><DELETE/></ITEM></INVENTORY>", update=True)
    assert delete.deletes
    _, (kept,), _ = opened("<INVENTORY><ITEM><LOTID>5</LOTID><DELETE>N</DELETE></ITEM></INVENTORY>", update=True)
    assert not kept.deletes
    _, _, bad = opened(
        "<INVENTORY><ITEM><LOTID>5</LOTID><QTY>3</QTY></ITEM><ITEM><QTY>+3</QTY></ITEM></INVENTORY>", update=True
    )
    assert [problem.reason.partition(":")[0] for problem in bad] == [
        "QTY of an update needs a sign, such as +3 or -3",
        "an update needs the LOTID of the lot to change",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "us-ascii"])
def test_any_honest_encoding_is_read(encoding: str) -> None:
    """The encoding that the file names is the one it is read in."""
    named = encoding.removesuffix("-sig").upper()
    assert read(BRICKLINK.replace("UTF-8", named).encode(encoding)) == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("<ITEMID>3001</ITEMID>", "", "ITEMID is missing"),
        ("<ITEMTYPE>P</ITEMTYPE>", "<ITEMTYPE>Z</ITEMTYPE>", "ITEMTYPE must be one of"),
        ("<QTY>1,752</QTY>", "<QTY>many</QTY>", "QTY must be a whole number"),
        ("<QTY>1,752</QTY>", "", "QTY is missing"),
        ("<PRICE>0.100</PRICE>", "<PRICE>NaN</PRICE>", "PRICE must be an amount"),
        ("<PRICE>0.100</PRICE>", "<PRICE>1e400000</PRICE>", "PRICE must be an amount"),
        ("<PRICE>0.100</PRICE>", "", "unit_price must be above zero"),
        ("<CONDITION>N</CONDITION>", "<CONDITION>?</CONDITION>", "CONDITION must be one of"),
        ("<CONDITION>N</CONDITION>", "<CONDITION/>", "CONDITION is missing"),
        ("<TP1>0.090</TP1>", "<TP1>0.200</TP1>", "tier_price1 must be below"),
        ("<TQ1>10</TQ1>", "<TQ1>0</TQ1>", "tier_quantity1"),
        ("<SALE>10</SALE>", "<SALE>100</SALE>", "sale_rate"),
        ("<RETAIN>Y</RETAIN>", "<BUYERUSERNAME>ann</BUYERUSERNAME>", "cannot be reserved"),
        ("<ITEMID>3001</ITEMID>", "<ITEMID>3001&#x200b;</ITEMID>", "item.no must be one line"),
        ("<ITEMID>3001</ITEMID>", "<ITEMID>30&#x2028;01</ITEMID>", "item.no must be one line"),
        ("<ITEMID>3001</ITEMID>", "<ITEMID>&#x3164;</ITEMID>", "item.no must be one line"),
        ("<LOTID>240001</LOTID>", "<LOTID>99999999999999999999</LOTID>", "LOTID must be a whole number"),
        ("<LOTID>240001</LOTID>", "<LOTID>-5</LOTID>", "LOTID must not be negative"),
    ],
)
def test_an_item_that_is_no_lot_is_named(old: str, new: str, why: str) -> None:
    """The message names the item and the reason; the other lots are imported."""
    _, entries, bad = opened(BRICKLINK.replace(old, new))
    invalid = [*map(str, bad), *(f"{entry}: {problems(entry)}" for entry in entries if problems(entry))]
    assert len(invalid) == 1
    assert invalid[0].startswith("item 1 (line 3, ")
    assert why in invalid[0]
