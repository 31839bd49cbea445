"""Printing to the terminal: lines that fit its width, with dates in the reader's zone. Exact times are in the JSON."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from policies.texts import replace_unprintable
from policies.timestamps import WRITTEN_TIMESTAMP, rewrite_timestamps_for_people
from workers.cli.options import zone_of_option


def echo(text: str, style: str = "", *, err: bool = False) -> None:
    PeopleConsole(stderr=err).write(Text(text, style))


def echo_literally(text: str, *, err: bool = False) -> None:
    if (sys.stderr if err else sys.stdout).isatty():
        PeopleConsole(stderr=err).write_wrapped(Text(text))
    else:
        click.echo(text, err=err)


class PeopleConsole(Console):
    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, **options)

    def write(self, text: str | Text) -> None:
        text = Text(text) if isinstance(text, str) else text
        # Each timestamp keeps the style that it begins with.
        for match in reversed([*WRITTEN_TIMESTAMP.finditer(text.plain)]):
            written = text[match.start() : match.end()]
            style = written.spans[0].style if written.spans else ""
            rewritten = Text(rewrite_timestamps_for_people(match[0], zone_of_option()), style)
            text = text[: match.start()] + rewritten + text[match.end() :]
        self.write_wrapped(text)

    def write_wrapped(self, text: Text) -> None:
        for line in text.split("\n", allow_blank=True):
            if line.cell_len <= self.width:
                self.print(line, soft_wrap=True)
                continue
            indent = len(line.plain) - len(line.plain.lstrip(" "))
            hanging = 2 if indent else 0
            for part in line[indent:].wrap(self, max(self.width - indent - hanging, 20)):
                part.rstrip()
                self.print(Text(" " * indent) + part, soft_wrap=True)
                indent += hanging
                hanging = 0


def escape_for_terminal(value: Any, *, keep_line_breaks: bool = False) -> Any:
    """Replace characters in strings, at any depth, that would act on the terminal: values contain people's comments.

    The text of an email keeps its line breaks: comments were reduced to one line when it was rendered.
    """
    if isinstance(value, dict):
        return {n: escape_for_terminal(item, keep_line_breaks=n == "text") for n, item in value.items()}
    if isinstance(value, list):
        return [escape_for_terminal(item) for item in value]
    if isinstance(value, str):
        keep = " \n" if keep_line_breaks else " "
        return replace_unprintable(value, lambda c: " " if c.isspace() else f"<U+{ord(c):04X}>", keep=keep)
    return value
