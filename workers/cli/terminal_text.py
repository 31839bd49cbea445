"""Printing to the terminal: lines that fit its width, with dates in the reader's zone. Exact times are in the JSON."""

from __future__ import annotations

import sys
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console
from rich.text import Text

from policies.timestamps import WRITTEN_TIMESTAMP, rewrite_timestamps_for_people
from policies.zones import validate_zone

ZONE_KEY = "unwind.zone"
HANGING_INDENT = 2
MIN_WIDTH = 20


def zone_option(command: Any) -> Any:
    return click.option(
        "--zone",
        metavar="ZONE",
        expose_value=False,
        callback=_set_zone,
        help="Write dates in this zone, such as Europe/Berlin, instead of UTC.",
    )(command)


def reader_zone() -> tzinfo:
    context = click.get_current_context(silent=True)
    return UTC if context is None else context.meta.get(ZONE_KEY, UTC)


def for_people(text: str) -> str:
    return rewrite_timestamps_for_people(text, reader_zone())


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

    def write(self, text: str | Text = "") -> None:
        self.write_wrapped(_rewrite_for_terminal(Text(text) if isinstance(text, str) else text))

    def write_wrapped(self, text: Text) -> None:
        for line in text.split("\n", allow_blank=True):
            if line.cell_len <= self.width:
                self.print(line, soft_wrap=True)
                continue
            indent = len(line.plain) - len(line.plain.lstrip(" "))
            hanging = HANGING_INDENT if indent else 0
            for part in line[indent:].wrap(self, max(self.width - indent - hanging, MIN_WIDTH)):
                part.rstrip()
                self.print(Text(" " * indent) + part, soft_wrap=True)
                indent += hanging
                hanging = 0


def escape_control_characters(value: Any) -> Any:
    """Replace characters in strings, at any depth, that would act on the terminal: values contain people's comments."""
    if isinstance(value, dict):
        return {
            name: _escape_lines(item) if name == "text" else escape_control_characters(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [escape_control_characters(item) for item in value]
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else " " if c.isspace() else f"<U+{ord(c):04X}>" for c in value)
    return value


def _escape_lines(text: Any) -> Any:
    # Keep the line breaks of an email: its comments were reduced to one line when it was rendered.
    if not isinstance(text, str):
        return escape_control_characters(text)
    return "\n".join(escape_control_characters(line) for line in text.split("\n"))


def _rewrite_for_terminal(text: Text) -> Text:
    # Each timestamp keeps the style that it begins with.
    for match in reversed([*WRITTEN_TIMESTAMP.finditer(text.plain)]):
        written = text[match.start() : match.end()]
        style = written.spans[0].style if written.spans else ""
        text = text[: match.start()] + Text(for_people(match[0]), style) + text[match.end() :]
    return text


def _set_zone(context: click.Context, _option: click.Parameter, name: str | None) -> None:
    if name is not None:
        try:
            context.meta[ZONE_KEY] = ZoneInfo(validate_zone(name))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
