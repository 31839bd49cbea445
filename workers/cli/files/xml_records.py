"""Streaming reader of XML files: yields one record (an item of an inventory, an order) at a time.

Files are untrusted: entities, document types with content, external references and anything too large, too deep or
badly encoded are refused with a sentence, and no tree is ever built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from defusedxml.common import DTDForbidden, EntitiesForbidden, ExternalReferenceForbidden
from defusedxml.ElementTree import DefusedXMLParser, ParseError

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Twice what `show lots --xml` writes for the largest store that can be imported."""
MAX_TEXT_LENGTH = 10_000
MAX_XML_DEPTH = 16
"""Levels of nested elements. All formats need four; BSX files have their editor's settings below that."""
MAX_ELEMENTS = 100
"""Different elements in one record. The programs write at most 40."""
CHUNK_BYTES = 1024 * 1024
"""Some parsers rescan an unfinished tag with each chunk: 60 MB of one attribute took 44 s in chunks of 64 KB."""
BSX_ROOTS = ("BrickStoreXML", "BrickStockXML")
XML_RECORD_PATHS = {
    "INVENTORY": ("INVENTORY", "ITEM"),
    **{root: (root, "Inventory", "Item") for root in BSX_ROOTS},
    "ORDERS": ("ORDERS", "ORDER"),
    "ORDER": ("ORDER",),
}
_MAX_HELD_BACK = 2 * CHUNK_BYTES
_LITERALS = {b"<![CDATA[": b"]]>", b"<!--": b"-->", b"<?": b"?>"}
"""What begins and ends a text in which an ampersand is only an ampersand."""
_BARE_XML_AMPERSAND = re.compile(
    rb"<!\[CDATA\[|<!--|<\?|\]\]>|-->|\?>|&(?!#[0-9]+;|#x[0-9A-Fa-f]+;|[A-Za-z_:][A-Za-z0-9_.:-]*;)"
)


class UnreadableFile(Exception):
    pass


@dataclass(slots=True)
class Record:
    """The texts of one record by element, in capitals, and the elements as they are written.

    `items`: records inside it. `nested`: elements whose text has other elements in it. `problem`: why its values cannot
    be told. `container`: attributes of BSX's `Inventory`.
    """

    number: int
    line: int | None
    root: str
    values: dict[str, str] = field(default_factory=dict)
    spelling: dict[str, str] = field(default_factory=dict)
    items: list[Record] = field(default_factory=list)
    nested: set[str] = field(default_factory=set)
    problem: str = ""
    container: Mapping[str, str] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        key = name.upper()
        if self.values.get(key, text) != text:
            self.problem = f"{name} stands twice in it, with different values"
        if len(self.values) >= MAX_ELEMENTS and key not in self.values:
            raise UnreadableFile(f"Item {self.number} has more than {MAX_ELEMENTS} elements.")
        self.values[key] = text
        self.spelling[key] = name


@dataclass(slots=True)
class XmlRepairs:
    count: int = 0
    first_line: int = 0

    def __str__(self) -> str:
        return f"{self.count} bare & read as &amp; (first on line {self.first_line})"


def read_xml(file: BinaryIO, repairs: XmlRepairs) -> Iterator[Record]:
    """Yield the records. A bare &, which BrickLink's downloads contain, is read as text and counted in `repairs`."""
    collector = _RecordCollector()
    parser = _RecordParser(target=collector, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    collector.line = lambda: int(parser.parser.CurrentLineNumber)
    is_utf_16 = b"\x00" in file.read(4)
    file.seek(0)
    chunks = read_chunks(file)
    try:
        for chunk in chunks if is_utf_16 else _repair_xml_chunks(chunks, repairs):
            parser.feed(chunk)
            yield from collector.done
            collector.done.clear()
        parser.close()
    except (EntitiesForbidden, DTDForbidden, ExternalReferenceForbidden) as forbidden:
        forbidden_part = "entities" if isinstance(forbidden, EntitiesForbidden) else "a document type"
        raise UnreadableFile(f"The file defines {forbidden_part}, which no inventory needs, and is not read.") from None
    except (ParseError, ValueError, LookupError) as error:  # includes an unknown or a wrong encoding
        raise NotWellFormed(
            f"This is not well-formed XML, or not in the encoding that it declares ({str(error)[:200]})."
        ) from None
    yield from collector.done


class NotWellFormed(UnreadableFile):
    pass


class _RecordCollector:
    def __init__(self) -> None:
        self.done: list[Record] = []
        self.line: Callable[[], int] = lambda: 0
        self._path: list[str] = []
        self._xml_record_path: tuple[str, ...] = ()
        self._count = 0
        self._open: list[Record] = []  # a record, and an item in it
        self._container: Mapping[str, str] = {}
        self._text: list[str] = []
        self._length = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        path = self._path
        if not path:
            self._xml_record_path = _xml_record_path(tag)
        path.append(tag)
        if len(path) > MAX_XML_DEPTH:
            raise UnreadableFile(f"Elements are nested more than {MAX_XML_DEPTH} deep (line {self.line()}).")
        level = self._level()
        if self._open:
            if tag == "ITEM" and len(self._open) == 1 and level == 1:
                self._open.append(Record(len(self._open[0].items) + 1, self.line(), path[0]))
            elif level > 1:
                self._open[-1].nested.add(path[-level].upper())
                return
        elif level == 0 and tuple(path[:-1]) == self._xml_record_path[:-1]:
            if tag != self._xml_record_path[-1]:
                raise UnreadableFile(f"<{tag[:40]}> is no <{self._xml_record_path[-1]}> (line {self.line()}).")
            self._count += 1
            self._open = [Record(self._count, self.line(), path[0], container=self._container)]
        elif path[0] in BSX_ROOTS and len(path) == 2:
            if tag == "Order":
                raise UnreadableFile("This is an order that BrickSync saved: it has what was sold, not what is there.")
            self._container = dict(attributes)
        self._text, self._length = [], 0

    def _level(self) -> int:
        # Of the innermost element: 0 is the innermost open record, 1 an element of it.
        return len(self._path) - len(self._xml_record_path) - (len(self._open) > 1)

    def data(self, text: str) -> None:
        if not self._open:
            return
        self._length += len(text)
        if self._length > MAX_TEXT_LENGTH:
            raise UnreadableFile(f"A text is longer than {MAX_TEXT_LENGTH} characters (line {self.line()}).")
        self._text.append(text)

    def end(self, tag: str) -> None:
        level = self._level()
        self._path.pop()
        if self._open and level == 0:
            record = self._open.pop()
            (self._open[-1].items if self._open else self.done).append(record)
        elif self._open and level == 1:
            self._open[-1].add(tag, "".join(self._text))


def _xml_record_path(root: str) -> tuple[str, ...]:
    if root not in XML_RECORD_PATHS:
        description = (
            "a web page; log in and download the file again" if root.lower() == "html" else f"a <{root[:40]}> file"
        )
        raise UnreadableFile(
            "This is neither a BrickLink inventory (INVENTORY) nor a BrickStore file (BrickStoreXML) nor an order "
            f"download (ORDERS): it is {description}."
        )
    return XML_RECORD_PATHS[root]


class _RecordParser(DefusedXMLParser):
    # Allows the one document type that BrickStore writes: a bare `<!DOCTYPE BrickStoreXML>`.

    def defused_start_doctype_decl(
        self, name: str, sysid: str | None, pubid: str | None, has_internal_subset: int
    ) -> None:
        if name.lower() == "html":
            _xml_record_path(name)
        if name not in BSX_ROOTS or sysid or pubid or has_internal_subset:
            raise DTDForbidden(name, sysid, pubid)


def read_chunks(file: BinaryIO) -> Iterator[bytes]:
    size = 0
    while chunk := file.read(CHUNK_BYTES):
        size += len(chunk)
        if size > MAX_FILE_BYTES:
            raise UnreadableFile(f"The file is larger than {MAX_FILE_BYTES // 1024**2} MB.")
        yield chunk


def _repair_xml_chunks(chunks: Iterator[bytes], repairs: XmlRepairs) -> Iterator[bytes]:
    end_of_literal, line, rest = b"", 1, b""

    def replace(match: re.Match[bytes]) -> bytes:
        nonlocal end_of_literal
        if end_of_literal:
            end_of_literal = b"" if match[0] == end_of_literal else end_of_literal
        elif match[0] != b"&":
            end_of_literal = _LITERALS.get(match[0], b"")
        else:
            repairs.count += 1
            repairs.first_line = repairs.first_line or line + match.string.count(b"\n", 0, match.start())
            return b"&amp;"
        return match[0]

    for chunk in chunks:
        data = rest + chunk
        # No reference and no mark of CDATA or of a comment goes on after a line or a `>`.
        end = max(data.rfind(b">"), data.rfind(b"\n")) + 1
        data, rest = (data[:end], data[end:]) if end or len(data) < _MAX_HELD_BACK else (data, b"")
        yield _BARE_XML_AMPERSAND.sub(replace, data)
        line += data.count(b"\n")
    yield _BARE_XML_AMPERSAND.sub(replace, rest)
