"""Reads the records of a file, XML or JSON; an unreadable file is diagnosed: damaged, or a document of another kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from workers.cli.files.json_records import read_json
from workers.cli.files.lot_elements import BRICK_OWL, SET_INVENTORY, WANTED_LIST
from workers.cli.files.xml_records import NotWellFormed, Record, UnreadableFile, XmlRepairs, read_xml

_IS_BRICK_OWL = "This is a Brick Owl file: its item numbers are not BrickLink's."


def read_records(
    file: BinaryIO, repairs: XmlRepairs, of_json: Callable[[int, Mapping[str, Any]], Record]
) -> Iterator[Record]:
    file.seek(0)
    start = file.read(4096)
    file.seek(0)
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        for number, value in enumerate(read_json(file), start=1):
            yield of_json(number, value)
        return
    try:
        yield from read_xml(file, repairs)
    except NotWellFormed as problem:
        raise _explain_file_problem(start, problem) from None


def refuse_other_documents(name: str, record: Record) -> None:
    values = record.values
    if name in WANTED_LIST and "QTY" not in values:
        raise UnreadableFile(
            f"This is a wanted list ({record.spelling[name]} in item {record.number}): it says what a buyer looks for, "
            "not what a store has."
        )
    if name in SET_INVENTORY and not values.keys() & {"PRICE", "CONDITION", "LOTID"}:
        raise UnreadableFile(
            f"This is the inventory of a set in the catalogue ({record.spelling[name]} in item {record.number}), "
            "not of a store."
        )
    if name in BRICK_OWL:
        raise UnreadableFile(_IS_BRICK_OWL)


def _explain_file_problem(start: bytes, problem: NotWellFormed) -> UnreadableFile:
    text = start.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    heading = text.partition("\n")[0].lower()
    is_table = not text.startswith("<") and any(separator in heading for separator in ",\t;")
    is_page = text.lower().startswith(("<html", "<!doctype html"))
    for is_it, sentence in (
        (not text, "The file is empty."),
        (start.startswith(b"PK\x03\x04"), "This is a ZIP archive, such as a BrickLink Studio model."),
        ("boid" in heading, _IS_BRICK_OWL),
        (is_page, "This is a web page: log in and download the file again."),
        (is_table, "This looks like a table (CSV) and is not well-formed XML: download it as XML."),
    ):
        if is_it:
            return UnreadableFile(sentence)
    return problem
