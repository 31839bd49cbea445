"""Tests of reading inventory files: formats, names of elements, flags, and refusals. No database."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import pytest

from policies.lot_imports import BadEntry, LotEntry
from policies.lots import Lot
from workers.cli.files import lot_reader, xml_records
from workers.cli.files.lot_elements import FIELD_OF_ELEMENT, FROM_THE_CATALOGUE, LEFT_OUT, WRITERS
from workers.cli.files.lot_reader import LotFile
from workers.cli.files.xml_records import UnreadableFile

CASES = Path(__file__).parent / "cases"
BRICKLINK = """<?xml version="1.0" encoding="UTF-8"?>
<INVENTORY>
 <ITEM>
  <LOTID>240001</LOTID><ITEMTYPE>P</ITEMTYPE><ITEMID>3001</ITEMID><COLOR>5</COLOR><CATEGORY>5</CATEGORY>
  <QTY>1,752</QTY><PRICE>0.100</PRICE><CONDITION>N</CONDITION><BULK>2</BULK><SALE>10</SALE>
  <DESCRIPTION>Bright &amp; new</DESCRIPTION><REMARKS>Box 7</REMARKS><RETAIN>Y</RETAIN>
  <STOCKROOM>Y</STOCKROOM><STOCKROOMID>B</STOCKROOMID><MYCOST>0.050</MYCOST><MYWEIGHT>2.3200</MYWEIGHT>
  <TQ1>10</TQ1><TP1>0.090</TP1><TQ2>100</TQ2><TP2>0.080</TP2><TQ3>0</TQ3><TP3>0.000</TP3>
 </ITEM>
 <ITEM>
  <ITEMTYPE>S</ITEMTYPE><ITEMID>6080-1</ITEMID><COLOR>0</COLOR><QTY>1</QTY><PRICE>149.99</PRICE>
  <CONDITION>U</CONDITION><SUBCONDITION>I</SUBCONDITION><BUYERUSERNAME>castle_fan</BUYERUSERNAME>
 </ITEM>
</INVENTORY>
"""
FIRST = Lot(
    240001,
    "s",
    "PART",
    "3001",
    5,
    1752,
    "N",
    Decimal("0.1000"),
    description="Bright & new",
    remarks="Box 7",
    bulk=2,
    sale_rate=10,
    is_retain=True,
    is_stock_room=True,
    stock_room_id="B",
    my_cost=Decimal("0.0500"),
    my_weight=Decimal("2.3200"),
    tiers=((10, Decimal("0.0900")), (100, Decimal("0.0800"))),
)
SECOND = Lot(0, "s", "SET", "6080-1", 0, 1, "U", Decimal("149.9900"), completeness="B", reserved_for="castle_fan")
BRICKSTORE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE BrickStoreXML>
<BrickStoreXML>
 <Inventory Currency="EUR">
  <Item>
   <ItemID>3001</ItemID><ItemTypeID>P</ItemTypeID><ColorID>5</ColorID><ItemName>Brick 2 x 4</ItemName>
   <Status>I</Status><Qty>4</Qty><Price>0.0399999991</Price><Condition>N</Condition>
   <Comments>Used &lt;twice&gt;</Comments>
   <Retain/><Stockroom>A</Stockroom><LotID>77</LotID><TotalWeight>9.28</TotalWeight><Cost>0.01</Cost>
   <DifferenceBaseValues Qty="3" Price="0.05"/>
  </Item>
  <Item><ItemID>sw0001</ItemID><ItemTypeID>M</ItemTypeID><ColorID>0</ColorID><Status>X</Status></Item>
  <Item>
   <ItemID>6080-1</ItemID><ItemTypeID>S</ItemTypeID><ColorID>0</ColorID><Qty>1</Qty><Price>99</Price>
   <Condition>N</Condition><SubCondition>M</SubCondition><Reserved>ann</Reserved>
  </Item>
 </Inventory>
 <GuiState Application="BrickStore" Version="2">
  <ColumnLayout><Column><Width>7</Width></Column></ColumnLayout>
 </GuiState>
</BrickStoreXML>
"""


def opened(content: str | bytes | BinaryIO, *, update: bool = False) -> tuple[LotFile, list[LotEntry], list[BadEntry]]:
    """A file that was inspected, its valid entries and its invalid ones."""
    data = content.encode() if isinstance(content, str) else content
    file = LotFile(io.BytesIO(data) if isinstance(data, bytes) else data, "s", is_update=update)
    bad = list(file.inspect())
    return file, list(file.entries()), bad


def read(content: str | bytes) -> list[Lot]:
    """The lots of a file without invalid items, as new lots."""
    _, entries, bad = opened(content)
    assert bad == []
    return [entry.as_new_lot("s", entry.lot_id) for entry in entries]


def case(name: str, *, update: bool = False) -> tuple[LotFile, list[LotEntry], list[BadEntry]]:
    return opened((CASES / name).read_bytes(), update=update)


def why_not(content: str | bytes) -> str:
    with pytest.raises(UnreadableFile) as problem:
        opened(content)
    return str(problem.value)


def problems(entry: LotEntry) -> str:
    return "; ".join(entry.find_problems(entry.as_new_lot("s", entry.lot_id), None))


def item(values: str) -> str:
    """An inventory of one part, with more elements."""
    return (
        "<INVENTORY><ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>3001</ITEMID><COLOR>5</COLOR><QTY>1</QTY><PRICE>1</PRICE>"
        f"<CONDITION>N</CONDITION>{values}</ITEM></INVENTORY>"
    )


def bsx_item(values: str) -> str:
    return (
        "<BrickStoreXML><Inventory><Item><ItemID>3001</ItemID><ItemTypeID>P</ItemTypeID><ColorID>5</ColorID><Qty>1</Qty>"
        f"<Price>1</Price><Condition>N</Condition>{values}</Item></Inventory></BrickStoreXML>"
    )


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
    assert (file.excluded, list(file.unread)) == (1, ["TotalWeight"])


def test_bricksync_names_the_completeness_and_the_cost_of_sets_otherwise() -> None:
    """Without them an incomplete set was merged into the lot of complete ones when an order was cancelled."""
    _, entries, bad = case("bricksync_sets.bsx")
    lots = [entry.as_new_lot("s", entry.lot_id) for entry in entries]
    assert [(x.lot_id, x.completeness, x.my_cost) for x in lots] == [(7001, "B", Decimal("21.5000")), (7002, "C", None)]
    assert bad == []


@pytest.mark.parametrize("program", WRITERS)
def test_every_element_that_a_program_writes_is_read_or_left_out_for_a_reason(program: str) -> None:
    _, elements = WRITERS[program]
    for element in elements.split():
        name = element.upper()
        assert name in FIELD_OF_ELEMENT or name in FROM_THE_CATALOGUE or name in LEFT_OUT, element


def test_an_unknown_element_with_a_value_is_reported_and_an_empty_one_is_not() -> None:
    file, _, _ = opened(item("<GRADE>7</GRADE><SHINE></SHINE><CATEGORY>5</CATEGORY>"))
    assert file.unread == {"GRADE": (1, "item 1 (line 1, PART 3001)")}


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
    assert "RETAIN must be Y or N" in str(bad[0])


def test_the_flags_of_the_case_mean_what_brickstore_means() -> None:
    _, entries, _ = case("stockroom_and_retain.bsx")
    first, second = (entry.as_new_lot("s", entry.lot_id) for entry in entries)
    assert (first.is_stock_room, first.stock_room_id, second.is_retain) == (True, "A", False)


def test_a_part_without_a_colour_and_a_lot_that_stands_twice_are_invalid() -> None:
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


API = {
    "inventory_id": 50592684,
    "item": {"no": "bel004", "name": "Sprue", "type": "PART", "categoryID": 48},
    "color_id": 5,
    "color_name": "Red",
    "quantity": 12,
    "new_or_used": "U",
    "unit_price": "1.2000",
    "bind_id": 7,
    "description": "&#40;light &amp;amp; dark&#41;",
    "remarks": "",
    "bulk": 1,
    "is_retain": False,
    "is_stock_room": True,
    "stock_room_id": "B",
    "date_created": "2013-12-18T05:00:00.000Z",
    "sale_rate": 10,
    "my_cost": "1.0000",
    "tier_quantity1": 10,
    "tier_price1": "1.0000",
    "tier_quantity2": 20,
    "tier_price2": "0.8000",
    "tier_quantity3": 0,
    "tier_price3": "0.0000",
}


@pytest.mark.parametrize("content", [{"meta": {"code": 200}, "data": [API]}, {"data": API, "meta": {}}, [API], API])
def test_the_api_s_inventory_response_is_read(content: object) -> None:
    """Its field names; entities of HTML are decoded once; dates and names of the catalogue are ignored."""
    file, entries, bad = opened(json.dumps(content))
    assert (bad, file.unread) == ([], {})
    lot = entries[0].as_new_lot("s", 50592684)
    assert lot == Lot(
        50592684, "s", "PART", "bel004", 5, 12, "U", Decimal("1.2000"), bind_id=7, description="(light &amp; dark)",
        is_stock_room=True, stock_room_id="B", sale_rate=10, my_cost=Decimal("1.0000"),
        tiers=((10, Decimal("1.0000")), (20, Decimal("0.8000"))),
    )  # fmt: skip


def test_the_json_of_show_is_read_and_its_texts_have_no_entities() -> None:
    lot = replace(FIRST, description="&amp; stays")
    assert read(json.dumps([lot.snapshot(), replace(SECOND, lot_id=5).snapshot()])) == [lot, replace(SECOND, lot_id=5)]
    _, _, bad = opened(json.dumps([lot.snapshot() | {"seller_id": "other"}]))
    assert "it belongs to another seller" in str(bad[0])
    _, _, bad = opened(json.dumps([lot.snapshot() | {"remarks": "\ud800"}]))
    assert "cannot be stored" in str(bad[0])


@pytest.mark.parametrize(
    "broken",
    [
        "[",
        "[1]",
        '{"meta": {}}',
        '{"meta": {}, "data": 7}',
        "[{}",
        "[{} {}]",
        "{}x",
        '[{"a": 1e}]',
        '[{"a": ' + "[" * 100_000,
    ],
)
def test_broken_json_is_refused(broken: str) -> None:
    assert why_not(broken)


def test_long_json_is_read_one_object_at_a_time() -> None:
    """The buffer holds one chunk and one object, however long the file is."""
    lots = [API | {"inventory_id": number, "description": "x" * 1000} for number in range(1, 2000)]
    _, entries, _ = opened(json.dumps(lots))
    assert [entry.lot_id for entry in entries] == list(range(1, 2000))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "us-ascii"])
def test_any_honest_encoding_is_read(encoding: str) -> None:
    """The encoding that the file names is the one it is read in."""
    named = encoding.removesuffix("-sig").upper()
    assert read(BRICKLINK.replace("UTF-8", named).encode(encoding)) == [FIRST, SECOND]


BOMB = '<?xml version="1.0"?><!DOCTYPE INVENTORY [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><INVENTORY>&b;</INVENTORY>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE BrickStoreXML SYSTEM "file:///etc/passwd"><BrickStoreXML/>'
INSIDE = '<!DOCTYPE BrickStoreXML [<!ENTITY x SYSTEM "file:///etc/passwd">]><BrickStoreXML>&x;</BrickStoreXML>'
LISTED = "<!DOCTYPE BrickStoreXML [<!ELEMENT Item ANY>]><BrickStoreXML/>"


@pytest.mark.parametrize("hostile", [BOMB, OUTSIDE, INSIDE, LISTED, "<!DOCTYPE INVENTORY><INVENTORY/>"])
def test_entities_and_document_types_are_refused(hostile: str) -> None:
    """Hostile XML is refused, and nothing outside the file is ever opened."""
    assert "is not read" in why_not(hostile)


@pytest.mark.parametrize(
    "broken",
    [
        b"not xml",
        b"<INVENTORY><ITEM></INVENTORY>",
        b"<INVENTORY>&unknown;</INVENTORY>",
        b"<INVENTORY>\x00</INVENTORY>",
        b'<?xml version="1.0" encoding="UTF-8"?><INVENTORY><ITEM><REMARKS>\xff\xfe</REMARKS></ITEM></INVENTORY>',
        b'<?xml version="1.0" encoding="x-none"?><INVENTORY/>',
        b'<?xml version="1.0" encoding="utf-7"?><INVENTORY/>',
        b'<?xml version="1.0" encoding="UTF-16"?><INVENTORY/>',
    ],
)
def test_what_is_not_xml_or_badly_encoded_is_refused(broken: bytes) -> None:
    assert "not well-formed XML" in why_not(broken)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 a zip", "ZIP archive"),
        (b"<html><body/></html>", "web page"),
        (b"<!DOCTYPE html>\n<html><body><br></body></html>", "web page"),
        (b"<feed/>", "neither a BrickLink inventory"),
        (b"BOID,Lot ID,Qty\n1-2,3,4\n", "Brick Owl"),
        (b'[{"boid": "1-2", "lot_id": "3", "qty": "4"}]', "Brick Owl"),
        (b"ITEMID,COLOR,QTY\n3001,5,4\n", "CSV"),
        (b"<ORDERS><ORDER><ORDERID>1</ORDERID></ORDER></ORDERS>", "order download"),
        (b'{"meta": {}, "data": [{"order_id": 7, "date_ordered": ""}]}', "orders"),
        (
            b"<INVENTORY><ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>1</ITEMID><MAXPRICE>1</MAXPRICE><MINQTY>2</MINQTY></ITEM></INVENTORY>",
            "wanted list",
        ),
        (
            b"<INVENTORY><ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>1</ITEMID><COLOR>1</COLOR><QTY>2</QTY><EXTRA>Y</EXTRA></ITEM></INVENTORY>",
            "inventory of a set",
        ),
    ],
)  # fmt: skip
def test_another_document_is_called_what_it_is(content: bytes, what: str) -> None:
    assert what in why_not(content)


def test_deep_and_long_and_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory needed does not grow with the file."""
    assert "deep" in why_not("<INVENTORY>" + "<a>" * 100_000)
    assert "longer" in why_not(f"<INVENTORY><ITEM><REMARKS>{'x' * 10_001}</REMARKS></ITEM></INVENTORY>")
    many = "".join(f"<A{n}>x</A{n}>" for n in range(101))
    assert "more than 100 elements" in why_not(f"<INVENTORY><ITEM>{many}</ITEM></INVENTORY>")
    monkeypatch.setattr(lot_reader, "MAX_ITEMS", 2_000)
    assert "more than 2,000 items" in why_not("<INVENTORY>" + "<ITEM/>" * 2_001)
    monkeypatch.setattr(xml_records, "MAX_FILE_BYTES", 2**20)
    assert "larger than 1 MB" in why_not("<INVENTORY>" + " " * 2**20)


def test_a_file_that_is_too_large_is_refused_without_reading_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hostile files: the reader stops where a file gets larger than any store's."""

    class Endless(io.BytesIO):
        """A file that never ends and counts what was taken from it."""

        taken = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            self.taken += size
            return b"<INVENTORY>" if self.taken <= 4096 + 2**20 else b" " * size

    monkeypatch.setattr(xml_records, "MAX_FILE_BYTES", 64 * 2**20)
    file = Endless()
    with pytest.raises(UnreadableFile, match="larger than 64 MB"):
        opened(file)
    assert file.taken < 70 * 2**20


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
    """The seller is told which item and why; the others are not hurt."""
    _, entries, bad = opened(BRICKLINK.replace(old, new))
    invalid = [*map(str, bad), *(f"{entry}: {problems(entry)}" for entry in entries if problems(entry))]
    assert len(invalid) == 1
    assert invalid[0].startswith("item 1 (line 3, ")
    assert why in invalid[0]
