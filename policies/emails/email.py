"""What is a letter, before anybody renders it?  What happened, what it means, what to do next: sentences to be read.

A letter holds plain text only; who renders it as mail or page escapes it.  Text that a member wrote is quoted, never
mixed into our own sentences, and cannot steer the reader's screen (C42, C44, C46).
"""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Any

MAX_SUBJECT_LENGTH = 120
MAX_NAME_LENGTH = 80
WIDTH = 72
"""Columns of plain text that every mail program shows without wrapping again."""

_OPENS = "\u202a\u202b\u202d\u202e\u2066\u2067\u2068"
_CLOSES = "\u202c\u2069"
_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"
_UNSEEN = "\ufffd"


@dataclass(frozen=True, slots=True)
class Quote:
    """A member's own words."""

    who: str
    text: str


@dataclass(frozen=True, slots=True)
class Email:
    """One letter to one reader.  Every string is one paragraph without markup; `subject` is one line."""

    subject: str
    happened: tuple[str, ...]
    quote: Quote | None = None
    means: tuple[str, ...] = ()
    next: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(heading, paragraphs) of the parts after the first, in reading order, without those that are empty."""
        named = (("What this means", self.means), ("What you can do", self.next))
        return tuple((heading, paragraphs) for heading, paragraphs in named if paragraphs)

    def as_json(self) -> dict[str, Any]:
        """The letter as it is kept."""
        return {
            "subject": self.subject,
            "happened": list(self.happened),
            "quote": {"who": self.quote.who, "text": self.quote.text} if self.quote else None,
            "means": list(self.means),
            "next": list(self.next),
        }


def email_from_json(kept: dict[str, Any]) -> Email:
    """Read a kept letter back."""
    quote = kept.get("quote")
    return Email(
        kept["subject"],
        tuple(kept["happened"]),
        Quote(quote["who"], quote["text"]) if quote else None,
        tuple(kept["means"]),
        tuple(kept["next"]),
    )


def render_plain(letter: Email) -> str:
    """The letter's body as plain text, wrapped, without greeting and links: what `show` prints and mails enclose."""
    blocks = [_wrapped(paragraph) for paragraph in letter.happened]
    if letter.quote is not None:
        blocks.append(f"{letter.quote.who} wrote:")
        blocks.append("\n".join(f"> {line}".rstrip() for line in sanitize_lines(letter.quote.text, width=WIDTH - 2)))
    for heading, paragraphs in letter.parts:
        blocks.append(f"{heading}\n{'-' * len(heading)}")
        blocks.extend(_wrapped(paragraph) for paragraph in paragraphs)
    return "\n\n".join(blocks)


def sanitize_line(text: str, longest: int = MAX_NAME_LENGTH) -> str:
    """A stranger's text inside one line of ours: no line breaks, no control characters, no direction left changed."""
    line = " ".join(_harmless(text).split())
    if len(line) > longest:
        line = line[: longest - 1].rstrip() + "…"
    return _isolated(line)


def sanitize_lines(text: str, *, width: int | None = None) -> list[str]:
    """A stranger's text as lines, each with a direction of its own; wrapped when `width` is given."""
    lines = [line.rstrip() for line in _harmless(text).strip("\n").split("\n")]
    if width is not None:
        lines = [
            one
            for line in lines
            for one in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
        ]
    return [_isolated(line) for line in lines]


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)


def _harmless(text: str) -> str:
    """Every kind of line break is one; any other control character is shown as unreadable instead of being obeyed."""
    for line_break in ("\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"):
        text = text.replace(line_break, "\n")
    text = text.replace("\t", " ")
    return "".join(c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else _UNSEEN for c in text)


def _isolated(line: str) -> str:
    """Keep right-to-left text and direction controls, but let none of them reach beyond this line's own isolate."""
    if all(c.isascii() for c in line) or not _turns(line):
        return line
    kept: list[str] = []
    open_kinds: list[str] = []
    for c in line:
        if c in _OPENS:
            open_kinds.append("\u2069" if c in "\u2066\u2067\u2068" else "\u202c")
        elif c in _CLOSES:
            if not open_kinds or open_kinds[-1] != c:
                continue  # would close something that this text did not open
            open_kinds.pop()
        kept.append(c)
    return _ISOLATE + "".join(kept) + "".join(reversed(open_kinds)) + _END_ISOLATE


def _turns(line: str) -> bool:
    return any(c in _OPENS or c in _CLOSES or unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in line)
