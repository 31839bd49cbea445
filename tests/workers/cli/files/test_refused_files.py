"""Tests of files that are refused: hostile, broken and too large ones, and other documents. No database."""

from __future__ import annotations

import io

import pytest

from tests.workers.cli.files.samples import opened, why_not
from workers.cli.files import lot_reader, xml_records
from workers.cli.files.xml_records import UnreadableFile

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
        (b"Item,Name\n3001,Brick & lid\n", "table (CSV)"),
        (b"PK\x03\x04 a zip", "ZIP archive"),
        (b"<html><body/></html>", "web page"),
        (b"<!DOCTYPE html>\n<html><body><br></body></html>", "web page"),
        (b"<feed/>", "neither a BrickLink inventory"),
        (b"<INVENTORY><Item><ITEMID>3001</ITEMID></Item></INVENTORY>", "<Item> is no <ITEM> (line 1)"),
        (b"<BrickStoreXML><Inventory><ITEM/></Inventory></BrickStoreXML>", "<ITEM> is no <Item> (line 1)"),
        (b"<BrickStoreXML><Order><OrderID>7</OrderID></Order><Inventory/></BrickStoreXML>", "an order that BrickSync"),
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
    assert "deep" in why_not("<INVENTORY><ITEM>" + "<a>" * 100_000)
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
