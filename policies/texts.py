"""What text can be read by a person, and what can be an id?  Unicode has blanks, breaks and marks that nobody sees.

An id is one line, says something that can be seen, and holds nothing that is invisible: two ids that look alike are one.
"""

from __future__ import annotations

import unicodedata

LINE_BREAKING = ("Cc", "Zl", "Zp")
"""Categories of Unicode: control characters (U+0085 among them), line and paragraph separators."""
INVISIBLE = (*LINE_BREAKING, "Cf", "Cs", "Cn", "Zs", "Mn", "Me")
BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols by their category that show nothing: fillers of Hangul, the empty pattern of braille."""
JOINERS = "\u200c\u200d"
"""Format characters that words are written with, in Persian and in Hindi."""


def is_visible(text: str) -> bool:
    """Whether any character of the text can be seen."""
    if text.isascii():
        return any(33 <= ord(c) < 127 for c in text)
    return any(unicodedata.category(c) not in INVISIBLE and c not in BLANK_LETTERS for c in text)


def is_one_line(text: str) -> bool:
    """Whether the text is one line that says something."""
    return is_visible(text) and not any(unicodedata.category(c) in LINE_BREAKING for c in text)


def is_identifier(text: str) -> bool:
    """Whether the text can name something: one line in which nothing is hidden."""
    if text.isascii():
        return text.isprintable() and is_visible(text)
    return is_one_line(text) and not any(
        c in BLANK_LETTERS or (unicodedata.category(c) == "Cf" and c not in JOINERS) for c in text
    )
