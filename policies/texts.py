"""Texts: whether they can be stored and read, characters that are not shown, plurals, joined sentences.

Unicode has blanks, breaks and marks that are invisible.  An id is one visible line without invisible characters, so
that two ids that look alike are equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container

LINE_BREAKING = ("Cc", "Zl", "Zp")
"""Unicode categories: control characters (with U+0085), line and paragraph separators."""
UNPRINTABLE = (*LINE_BREAKING, "Cf", "Cs", "Co", "Cn", "Zs")
"""What `str.isprintable` refuses, except the space."""
INVISIBLE = (*LINE_BREAKING, "Cf", "Cs", "Cn", "Zs", "Mn", "Me")
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols by category that are blank: Hangul fillers and the empty braille pattern."""
JOINERS = "\u200c\u200d"
"""Format characters that Persian and Hindi words need."""
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL and JSON take the text: it has no NUL and no unpaired surrogates."""
    try:
        text.encode()  # ten megabytes take milliseconds; a check of each character takes a second
    except UnicodeEncodeError:
        return False
    return "\x00" not in text


def has_blank_or_control(text: str) -> bool:
    """Return whether the text contains a character of ASCII that is a blank or a control character."""
    return any(c <= " " or c == "\x7f" for c in text)


def replace_unprintable(
    text: str,
    replacement: str | Callable[[str], str] = "?",
    *,
    categories: Container[str] = UNPRINTABLE,
    keep: str = " ",
) -> str:
    """Replace the characters of these Unicode categories: by default, all that a terminal would obey or not show."""
    if text.isprintable():
        return text
    replace = replacement if callable(replacement) else lambda _: replacement
    return "".join(replace(c) if unicodedata.category(c) in categories and c not in keep else c for c in text)


def escape_unprintable(text: str) -> str:
    """Write line breaks, control characters and the like as Python does, such as `\\n` and `\\x1b`."""
    return replace_unprintable(text, lambda c: c.encode("unicode_escape").decode())


def escape_to_ascii(text: str) -> str:
    """Escape NUL and everything outside ASCII, for a database of any encoding."""
    return text.replace("\x00", "\\x00").encode("ascii", "backslashreplace").decode()


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
