"""Tests of reading and writing inventory files, and of the commands that do."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as some

from models import inventory
from policies.lots import Lot
from tests.plugins.market import Market
from workers.cli import bricklink_xml, group
from workers.cli import lots as lots_command
from workers.cli.bricklink_xml import BadItem, NotAnInventory, read_lots, write_lots
from workers.simulation.engine import Simulation

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
   <Comments>Used &lt;twice&gt;</Comments><Retain/>
   <Stockroom>A</Stockroom><LotID>77</LotID><TotalWeight>9.28</TotalWeight><Cost>0.01</Cost>
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


def lots_and_errors(file: BinaryIO) -> tuple[list[Lot], list[BadItem]]:
    """The lots of a file, and its invalid items."""
    items = list(read_lots(file, "s"))
    return [item for item in items if isinstance(item, Lot)], [item for item in items if isinstance(item, BadItem)]


def read(text: str | bytes) -> list[Lot]:
    lots, bad = lots_and_errors(io.BytesIO(text.encode() if isinstance(text, str) else text))
    assert bad == []
    return lots


def rejection_reason(text: str | bytes) -> str:
    with pytest.raises(NotAnInventory) as problem:
        read(text)
    return str(problem.value)


def test_upload_file_is_read() -> None:
    assert read(BRICKLINK) == [FIRST, SECOND]


def test_brickstore_file_is_read() -> None:
    lots = read(BRICKSTORE)
    assert [(x.lot_id, x.item_type, x.item_no, x.quantity, x.unit_price) for x in lots] == [
        (77, "PART", "3001", 4, Decimal("0.0400")),
        (0, "SET", "6080-1", 1, Decimal("99.0000")),
    ]
    first, second = lots
    assert (first.is_retain, first.stock_room_id, first.description) == (True, "A", "Used <twice>")
    assert (second.completeness, second.reserved_for, second.my_weight) == ("S", "ann", None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "us-ascii"])
def test_declared_encoding_is_used(encoding: str) -> None:
    encoding_name = encoding.removesuffix("-sig").upper()
    assert read(BRICKLINK.replace("UTF-8", encoding_name).encode(encoding)) == [FIRST, SECOND]


@given(some.text(some.characters(exclude_categories=["Cs", "Cc"]), max_size=50).map(str.strip))
def test_texts_survive_writing_and_reading(text: str) -> None:
    lots = [replace(FIRST, remarks=text), replace(SECOND, lot_id=9, description=text)]
    expected = bricklink_xml._replace_invalid_characters(text).strip()
    assert read("".join(write_lots(lots))) == [
        replace(lots[0], remarks=expected),
        replace(lots[1], description=expected),
    ]


BOMB = '<?xml version="1.0"?><!DOCTYPE INVENTORY [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><INVENTORY>&b;</INVENTORY>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE BrickStoreXML SYSTEM "file:///etc/passwd"><BrickStoreXML/>'
INSIDE = '<!DOCTYPE BrickStoreXML [<!ENTITY x SYSTEM "file:///etc/passwd">]><BrickStoreXML>&x;</BrickStoreXML>'
LISTED = "<!DOCTYPE BrickStoreXML [<!ELEMENT Item ANY>]><BrickStoreXML/>"


@pytest.mark.parametrize("hostile", [BOMB, OUTSIDE, INSIDE, LISTED, "<!DOCTYPE INVENTORY><INVENTORY/>"])
def test_entities_and_document_types_are_refused(hostile: str) -> None:
    assert "is not read" in rejection_reason(hostile)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not xml",
        b"<INVENTORY><ITEM></INVENTORY>",
        b"<INVENTORY>&unknown;</INVENTORY>",
        b"<INVENTORY>\x00</INVENTORY>",
        b'<?xml version="1.0" encoding="UTF-8"?><INVENTORY><ITEM><REMARKS>\xff\xfe</REMARKS></ITEM></INVENTORY>',
        b'<?xml version="1.0" encoding="x-none"?><INVENTORY/>',
        b'<?xml version="1.0" encoding="utf-7"?><INVENTORY/>',
        b'<?xml version="1.0" encoding="UTF-16"?><INVENTORY/>',
        b"PK\x03\x04 a zip",
    ],
)
def test_malformed_xml_is_refused(broken: bytes) -> None:
    assert "not well-formed XML" in rejection_reason(broken)


def test_other_documents_are_refused() -> None:
    assert "neither" in rejection_reason("<html><body/></html>")


def test_deep_long_and_large_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "deep" in rejection_reason("<INVENTORY>" + "<a>" * 100_000)
    assert "longer" in rejection_reason(f"<INVENTORY><ITEM><REMARKS>{'x' * 10_001}</REMARKS></ITEM></INVENTORY>")
    assert "more than 200,000 items" in rejection_reason("<INVENTORY>" + "<ITEM/>" * 200_001)
    monkeypatch.setattr(bricklink_xml, "MAX_FILE_BYTES", 2**20)
    assert "larger than 1 MB" in rejection_reason("<INVENTORY>" + "<ITEM/>" * 180_000)


def test_oversized_file_is_not_read_to_its_end() -> None:
    class Endless(io.BytesIO):
        """An endless file that counts the bytes that were read."""

        bytes_read = 0

        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            self.bytes_read += size
            return b"<INVENTORY>" if self.bytes_read == size else b" " * size

    file = Endless()
    with pytest.raises(NotAnInventory, match="larger than 64 MB"):
        lots_and_errors(file)
    assert file.bytes_read < 70 * 2**20


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("<ITEMID>3001</ITEMID>", "", "ITEMID is missing"),
        ("<ITEMTYPE>P</ITEMTYPE>", "<ITEMTYPE>Z</ITEMTYPE>", "ITEMTYPE must be one of"),
        ("<QTY>1,752</QTY>", "<QTY>many</QTY>", "QTY must be a whole number"),
        ("<QTY>1,752</QTY>", "<QTY>-1</QTY>", "quantity must be between"),
        ("<PRICE>0.100</PRICE>", "<PRICE>NaN</PRICE>", "PRICE must be an amount"),
        ("<PRICE>0.100</PRICE>", "<PRICE>1e400000</PRICE>", "PRICE must be an amount"),
        ("<PRICE>0.100</PRICE>", "", "unit_price must be above zero"),
        ("<CONDITION>N</CONDITION>", "<CONDITION>?</CONDITION>", "CONDITION must be one of"),
        ("<TP1>0.090</TP1>", "<TP1>0.200</TP1>", "tier_price1 must be below"),
        ("<TQ1>10</TQ1>", "<TQ1>0</TQ1>", "tier_quantity1"),
        ("<SALE>10</SALE>", "<SALE>100</SALE>", "sale_rate"),
        ("<RETAIN>Y</RETAIN>", "<BUYERUSERNAME>ann</BUYERUSERNAME>", "cannot be reserved"),
        ("<ITEMID>3001</ITEMID>", "<ITEMID>3001&#x200b;</ITEMID>", "item.no must be one line"),
        ("<ITEMID>3001</ITEMID>", "<ITEMID>30&#x2028;01</ITEMID>", "item.no must be one line"),
        ("<ITEMID>3001</ITEMID>", "<ITEMID>&#x3164;</ITEMID>", "item.no must be one line"),
        ("<LOTID>240001</LOTID>", "<LOTID>99999999999999999999</LOTID>", "LOTID must be a whole number"),
    ],
)
def test_invalid_item_is_reported_with_its_reason(old: str, new: str, why: str) -> None:
    lots, bad = lots_and_errors(io.BytesIO(BRICKLINK.replace(old, new).encode()))
    assert lots == [SECOND]
    assert [item.number for item in bad] == [1]
    assert why in str(bad[0])


def run(database_url: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    monkeypatch.setenv("DATABASE_URL", database_url)
    result = CliRunner().invoke(group, list(words))
    return result.exit_code, result.output


def test_imported_lots_can_be_exported(
    simulation: Simulation, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.do("members.record", member_id="s", handle="s", email="s@example.org")
    file = tmp_path / "store.xml"
    file.write_text(BRICKLINK)
    assert run(database_url, monkeypatch, "import-lots", str(file), "--seller", "s") == (
        0,
        "2 lots imported, 0 updated: 1753 units of s.\n",
    )
    with simulation.database.transaction() as conn:
        assert inventory.load_lots(conn, "s") == [FIRST, replace(SECOND, lot_id=9_000_000_000_000)]
    code, output = run(database_url, monkeypatch, "show", "lots", "s", "--xml")
    assert code == 0
    file.write_text(output)
    code, output = run(database_url, monkeypatch, "import-lots", str(file), "--seller", "s")
    assert (code, output) == (0, "0 lots imported, 2 updated: 1753 units of s.\n")


def test_returned_only_exports_lots_with_returned_units(
    market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = market.lot(501), market.lot(502, color_id=7)
    market.order(1, [(first, 10), (second, 100)])
    returned = ("show", "lots", "seller", "--xml", "--returned")
    code, output = run(database_url, monkeypatch, *returned)
    assert (code, read(output)) == (0, [])
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    code, output = run(database_url, monkeypatch, *returned)
    back = [(lot.lot_id, lot.color_id, lot.quantity) for lot in read(output)]
    assert (code, back) == (0, [(501, 5, 10), (9_000_000_000_000, 7, 100)])
    market.order(2, [(first, 95)])
    code, output = run(database_url, monkeypatch, *returned)
    assert [(lot.lot_id, lot.quantity) for lot in read(output)] == [(501, 5), (9_000_000_000_000, 100)]
    code, output = run(database_url, monkeypatch, "show", "lots", "nobody", "--xml")
    assert (code, output) == (1, "Error: There is no seller nobody.\n")


def test_lot_of_another_seller_stops_the_import(
    market: Market, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lots_command, "BATCH_SIZE", 1)
    market.lot(77, seller_id="other_seller")
    file = tmp_path / "store.xml"
    file.write_text(BRICKLINK.replace("<ITEMTYPE>S", "<LOTID>77</LOTID><ITEMTYPE>S"))
    code, output = run(database_url, monkeypatch, "import-lots", str(file), "--seller", "seller")
    assert (code, output) == (1, "Error: Lot 77 belongs to another seller. Nothing was imported.\n")
    with market.simulation.database.transaction() as conn:
        assert inventory.load_lots(conn, "seller") == []


def test_invalid_item_stops_the_import(
    simulation: Simulation, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation.do("members.record", member_id="s", handle="s", email="s@example.org")
    file = tmp_path / "store.xml"
    file.write_text(BRICKLINK.replace("<QTY>1</QTY>", "<QTY>one</QTY>"))
    code, output = run(database_url, monkeypatch, "import-lots", str(file), "--seller", "s")
    assert code == 1
    assert "store.xml: item 2: QTY must be a whole number" in output
    with simulation.database.transaction() as conn:
        assert inventory.load_lots(conn, "s") == []
    assert run(database_url, monkeypatch, "import-lots", str(file), "--seller", "nobody")[0] == 1
