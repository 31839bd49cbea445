"""Streaming reader of JSON files: yields one object of a list at a time.

A file is a list, one object, or an answer of BrickLink's API with either under `data`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO

from workers.cli.files.xml_records import UnreadableFile, read_chunks

MAX_OBJECT_LENGTH = 4 * 1024 * 1024  # characters; an order of a thousand lines has half a million
_SPACE = re.compile(r"[ \t\r\n]*")


def _json_record_of_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        for name, value in pairs:
            if value != values[name]:
                raise UnreadableFile(f"An object says {name[:40]} twice, with different values.")
    return values


_JSON_RECORD_DECODER = json.JSONDecoder(
    parse_float=Decimal, parse_constant=lambda _name: None, object_pairs_hook=_json_record_of_pairs
)
_NOT_JSON = "This is not well-formed JSON: {}."


def read_json(file: BinaryIO) -> Iterator[dict[str, Any]]:
    in_envelope = bool(re.match(rb'(\xef\xbb\xbf)?[ \t\r\n]*\{[ \t\r\n]*"(meta|data)"', file.read(4096)))
    file.seek(0)
    text = _JsonText(file)
    if in_envelope:
        text.skip_to_data()
    for value in _read_json_list(text) if text.peek() == "[" else [text.value()]:
        if not isinstance(value, dict):
            raise UnreadableFile("A list of objects is expected, and this one holds something else.")
        yield value
    if not in_envelope and text.peek():
        raise UnreadableFile(_NOT_JSON.format("something follows after its end"))


def _read_json_list(text: _JsonText) -> Iterator[Any]:
    text.take("[")
    has_more = text.peek() != "]"
    while has_more:
        yield text.value()
        if has_more := text.peek() == ",":
            text.take(",")
    text.take("]")


class _JsonText:
    def __init__(self, file: BinaryIO) -> None:
        self._texts = codecs.iterdecode(read_chunks(file), "utf-8-sig")
        self._buffer, self._at = "", 0

    def peek(self) -> str:
        self._skip_space()
        return self._buffer[self._at : self._at + 1]

    def take(self, character: str) -> None:
        if self.peek() != character:
            raise UnreadableFile(_NOT_JSON.format(f"{character} is expected, and {self.peek() or 'the end'} is there"))
        self._at += 1

    def value(self) -> Any:
        self._skip_space()
        while True:
            try:
                value, end = _JSON_RECORD_DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._at > MAX_OBJECT_LENGTH:
                    raise UnreadableFile(f"An object is longer than {MAX_OBJECT_LENGTH:,} characters.") from None
                if not self._more():
                    raise UnreadableFile(_NOT_JSON.format(error.msg)) from None
            except (RecursionError, ValueError) as error:
                raise UnreadableFile(_NOT_JSON.format(str(error)[:100] or "it is nested too deeply")) from None
            else:
                if end == len(self._buffer) and self._more():  # a number may go on
                    continue
                self._at = end
                return value

    def skip_to_data(self) -> None:
        self.take("{")
        while True:
            name = self.value()
            self.take(":")
            if name == "data":
                return
            self.value()
            if self.peek() != ",":
                raise UnreadableFile("This answer of the API has no data.")
            self.take(",")

    def _skip_space(self) -> None:
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer) or not self._more():
                return

    def _more(self) -> bool:
        try:
            text = next(self._texts, "")
        except UnicodeDecodeError:
            raise UnreadableFile("The file is not in UTF-8, as JSON is.") from None
        self._buffer, self._at = self._buffer[self._at :] + text, 0
        return bool(text)
