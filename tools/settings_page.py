"""Which settings are there?  `docs/settings.md`, made from the settings themselves, never by hand."""

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

This page is made by `./run docs` from `workers/settings.py`; a test compares it. Do not edit it by hand. All of them are
optional environment variables; [`.env.example`](../.env.example) has them as lines to be filled in. They say where and how
fast; what is owed (deadlines, fees, limits) are dated terms in the database: `./run terms show`. What does not fit is named
when a command starts, without its value, and `./run doctor` names variables that look like one of ours and are none.

| variable | says | default |
| --- | --- | --- |
{rows}
"""


def settings_page() -> str:
    """The whole page, as Markdown."""
    return PAGE.format(rows="\n".join(_row(field) for field in Settings.model_fields.values()))


def _row(field: FieldInfo) -> str:
    return f"| `{field.validation_alias}` | {field.description} | {_default(field)} |"


def _default(field: FieldInfo) -> str:
    """What holds when it is not set; where that follows from another setting or from the place, its description says so."""
    given: Any = field.default
    if given is PydanticUndefined or given is None or isinstance(given, SecretStr | Path) or inspect.isroutine(given):
        return "–"
    return f"`{given}`"
