"""Texts: checks that they are readable and that ids contain no invisible characters, plurals, joined sentences.

Unicode has blanks, breaks and marks that are invisible.  An id is one visible line without invisible characters, so
that two ids that look alike are equal.
"""

from __future__ import annotations

import re
import unicodedata

LINE_BREAKING = ("Cc", "Zl", "Zp")
"""Unicode categories: control characters (with U+0085), line and paragraph separators."""
INVISIBLE = (*LINE_BREAKING, "Cf", "Cs", "Cn", "Zs", "Mn", "Me")
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols by category that are blank: Hangul fillers and the empty braille pattern."""
JOINERS = "\u200c\u200d"
"""Format characters that Persian and Hindi words need."""
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable_text(text: str, replacement: str = "?") -> str:
    """Replace every character that a terminal would obey, not show, and every lone surrogate."""
    return text if text.isprintable() else "".join(c if c.isprintable() else replacement for c in text)


def replace_non_xml_characters(text: str) -> str:
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def is_visible(text: str) -> bool:
    if text.isascii():
        return any(33 <= ord(c) < 127 for c in text)
    return any(unicodedata.category(c) not in INVISIBLE and c not in BLANK_LETTERS for c in text)


def is_one_line(text: str) -> bool:
    return is_visible(text) and not any(unicodedata.category(c) in LINE_BREAKING for c in text)


def is_identifier(text: str) -> bool:
    if text.isascii():
        return text.isprintable() and is_visible(text)
    return is_one_line(text) and not any(
        c in BLANK_LETTERS or (unicodedata.category(c) == "Cf" and c not in JOINERS) for c in text
    )


def pluralize(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def join_sentences(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
