"""Inventory files for tests, and helpers that read them without a database."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import pytest

from policies.lot_imports import BadEntry, LotEntry
from policies.lots import Lot
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
