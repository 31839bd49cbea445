"""Diagnoses an unreadable file: damaged, or a different kind of document, which is named."""

from __future__ import annotations

from typing import BinaryIO

from workers.cli.files.lot_elements import BRICK_OWL, SET_INVENTORY, WANTED_LIST
from workers.cli.files.xml_records import NotWellFormed, Record, UnreadableFile, XmlRepairs, read_xml


def find_bare_ampersands(file: BinaryIO, problem: NotWellFormed) -> XmlRepairs:
    """Return what makes the file well-formed, which BrickLink's downloads need. Raises `UnreadableFile` for others."""
    file.seek(0)
    if file.read(2) not in (b"\xff\xfe", b"\xfe\xff"):
        file.seek(0)
        repairs = XmlRepairs()
        try:
            for _ in read_xml(file, repairs):
                pass
        except NotWellFormed:
            repairs.count = 0
        if repairs.count:
            return repairs
    raise _explained(file, problem) from None


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
        raise UnreadableFile("This is a Brick Owl file: its item numbers are not BrickLink's.")


def describe_repairs(repairs: XmlRepairs) -> str:
    return f"{repairs.count} bare & read as &amp; (first on line {repairs.first_line})"


def _explained(file: BinaryIO, problem: NotWellFormed) -> UnreadableFile:
    file.seek(0)
    start = file.read(4096)
    text = start.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    heading = text.partition("\n")[0].lower()
    if not text:
        return UnreadableFile("The file is empty.")
    if start.startswith(b"PK\x03\x04"):
        return UnreadableFile("This is a ZIP archive, such as a BrickLink Studio model.")
    if "boid" in heading:
        return UnreadableFile("This is a Brick Owl file: its item numbers are not BrickLink's.")
    if text.lower().startswith(("<html", "<!doctype html")):
        return UnreadableFile("This is a web page: log in and download the file again.")
    if not text.startswith("<") and ("," in heading or "\t" in heading or ";" in heading):
        return UnreadableFile("This looks like a table (CSV) and is not well-formed XML: download it as XML.")
    return problem
