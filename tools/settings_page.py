"""Generator of `docs/settings.md`, from the settings themselves."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from workers.settings import Settings

PAGE = """\
# Settings

`./run docs` generates this page from `workers/settings.py`, and `./run check` compares it. All settings are optional
environment variables; [`.env.example`](../.env.example) lists them to be filled in. They configure addresses and
capacity; deadlines, fees and limits are dated terms in the database: `./run terms show`. An invalid value is reported
when a command starts, without the value itself, and `./run doctor` reports unknown variables that begin like a setting.

| variable | meaning | default |
| --- | --- | --- |
{rows}
"""


def settings_page() -> str:
    """The page as Markdown."""
    return PAGE.format(rows="\n".join(_row(field) for field in Settings.model_fields.values()))


def _row(field: FieldInfo) -> str:
    return f"| `{field.validation_alias}` | {field.description} | {_default(field)} |"


def _default(field: FieldInfo) -> str:
    """The default, or a dash where the description explains what applies."""
    default: Any = field.default
    if (
        default is PydanticUndefined
        or default in (None, "")
        or isinstance(default, SecretStr | Path)
        or inspect.isroutine(default)
    ):
        return "–"
    return f"`{default}`"
