"""The options that several commands share: `--zone`, `--json` and `--after`, and `--data`, which every command has."""

from __future__ import annotations

import os
import re
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

import click

from policies.zones import validate_zone

_ZONE_KEY = "unwind.zone"


def _set_data_dir(_context: click.Context, _option: click.Parameter, path: str | None) -> None:
    if path:
        os.environ["UNWIND_DATA"] = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - plain text


def _set_zone_option(context: click.Context, _option: click.Parameter, name: str | None) -> None:
    if name is not None:
        try:
            context.meta[_ZONE_KEY] = ZoneInfo(validate_zone(name))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None


def zone_of_option() -> tzinfo:
    context = click.get_current_context(silent=True)
    return UTC if context is None else context.meta.get(_ZONE_KEY, UTC)


def check_cursor_option(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[0-9]{1,18}\.[0-9]\.[0-9]{1,18}", value):
        raise click.BadParameter("is no cursor: use the one that `./run events` prints next to the last event handled")
    return value


DATA_OPTION = click.Option(
    ["--data"],
    metavar="DIR",
    expose_value=False,
    is_eager=True,
    callback=_set_data_dir,
    help="Directory for data, logs and emails instead of .unwind (or UNWIND_DATA).",
)
zone_option = click.option(
    "--zone",
    metavar="ZONE",
    expose_value=False,
    callback=_set_zone_option,
    help="Write dates in this zone, such as Europe/Berlin, instead of UTC.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
json_lines_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
