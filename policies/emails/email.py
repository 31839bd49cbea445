"""The content of an email as plain text; member-written text is made safe to display.

Renderers escape the content.  Members' text is quoted, never mixed into our own sentences, and its control and
direction characters have no effect beyond it.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.texts import replace_unprintable

MAX_SUBJECT_LENGTH = 120
MAX_NAME_LENGTH = 80
Paragraphs = str | tuple[str, ...]
"""One paragraph or several; empty ones are left out."""
EMAIL_WIDTH = 72
"""Columns that mail programs show without wrapping again."""

_ISOLATE, _END_ISOLATE = "\u2068", "\u2069"
_ENDS_OF_DIRECTIONS = dict.fromkeys("\u202a\u202b\u202d\u202e", "\u202c") | dict.fromkeys(
    "\u2066\u2067\u2068", _END_ISOLATE
)
_DIRECTING = ("R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Unicode's classes of right-to-left characters and of direction controls."""


@dataclass(frozen=True, slots=True)
class Quote:
    author: str
    text: str


@dataclass(frozen=True, slots=True)
class Email:
    """The content of one email.  Every string is one paragraph without markup; `subject` is one line."""

    subject: str
    happened: Sequence[str]
    quote: Quote | None = None
    means: Sequence[str] = ()
    next: Sequence[str] = ()

    @property
    def parts(self) -> tuple[tuple[str, Sequence[str]], ...]:
        parts = (("What this means", self.means), ("What you can do", self.next))
        return tuple((heading, paragraphs) for heading, paragraphs in parts if paragraphs)


def email_from_json(stored: Mapping[str, Any]) -> Email:
    return Email(**{**stored, "quote": Quote(**quote) if (quote := stored.get("quote")) else None})


def build_email(
    subject: str, happened: Paragraphs, means: Paragraphs = (), to_do: Paragraphs = (), quote: Quote | None = None
) -> Email:
    return Email(subject, _email_paragraphs(happened), quote, _email_paragraphs(means), _email_paragraphs(to_do))


def _email_paragraphs(texts: Paragraphs) -> tuple[str, ...]:
    return tuple(text for text in ((texts,) if isinstance(texts, str) else texts) if text)


def render_plain_email(email: Email) -> str:
    blocks = [_wrap_email_paragraph(paragraph) for paragraph in email.happened]
    if email.quote is not None:
        blocks.append(f"{email.quote.author} wrote:")
        blocks.append(
            "\n".join(f"> {line}".rstrip() for line in sanitize_email_lines(email.quote.text, width=EMAIL_WIDTH - 2))
        )
    for heading, paragraphs in email.parts:
        blocks.append(f"{heading}\n{'-' * len(heading)}")
        blocks.extend(_wrap_email_paragraph(paragraph) for paragraph in paragraphs)
    return "\n\n".join(blocks)


def sanitize_email_line(text: str, max_length: int = MAX_NAME_LENGTH) -> str:
    """Make a member's text safe in a line of ours: no line breaks or control characters, text direction isolated."""
    line = " ".join(_email_text_without_controls(text).split())
    if len(line) > max_length:
        line = line[: max_length - 1].rstrip() + "…"
    return _isolate_email_direction(line)


def sanitize_email_lines(text: str, *, width: int | None = None) -> list[str]:
    lines = [line.rstrip() for line in _email_text_without_controls(text).strip("\n").split("\n")]
    if width is not None:
        lines = [
            part
            for line in lines
            for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
        ]
    return [_isolate_email_direction(line) for line in lines]


def _wrap_email_paragraph(paragraph: str) -> str:
    # What `textwrap.fill` does, in a third of the time.
    lines, width = [""], 0
    for word in paragraph.split():
        width += 1 + len(word)
        if width > EMAIL_WIDTH or not lines[-1]:
            lines.append(word)
            width = len(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines[1:])


def _email_text_without_controls(text: str) -> str:
    if text.isprintable():
        return text
    for line_break in ("\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"):
        text = text.replace(line_break, "\n")
    text = text.replace("\t", " ")
    return replace_unprintable(text, "\N{REPLACEMENT CHARACTER}", categories=("Cc", "Cs"), keep="\n")


def _isolate_email_direction(line: str) -> str:
    # Keep right-to-left text and direction controls, but end their effect with the line.
    if line.isascii() or not any(unicodedata.bidirectional(c) in _DIRECTING for c in line):
        return line
    characters: list[str] = []
    closers: list[str] = []
    for c in line:
        if c in _ENDS_OF_DIRECTIONS:
            closers.append(_ENDS_OF_DIRECTIONS[c])
        elif c in _ENDS_OF_DIRECTIONS.values():
            if not closers or closers[-1] != c:
                continue  # would close something that this text did not open
            closers.pop()
        characters.append(c)
    return _ISOLATE + "".join(characters) + "".join(reversed(closers)) + _END_ISOLATE
