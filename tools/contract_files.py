"""Generator of `contract/`: JSON Schemas and example messages, from the argument models.

One schema for the arguments of each public task, one for the answer, examples of both, and one for a row of each view.
They are committed, `./run check` compares them with the code, and `./run docs` refuses to write a breaking change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.ddl.views import VIEWS, View
from policies.cancel_routes import CANCEL_ROUTE_PARTIES
from policies.statuses import CancelBasis, Status
from tasks import schemas
from tasks.declarations import all_commands
from tools.contract_changes import breaks_readers, breaks_senders
from tools.contract_messages import ANSWERS, example
from workers.settings import CHECKOUT

CONTRACT = CHECKOUT / "contract"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ANSWER_FILE = "answer.schema.json"
OPTIONS_FILE = "orders.options.effects.schema.json"
VIEW_FOLDER = "views/"


def public_tasks() -> list[str]:
    """The wire names of the tasks that upstream systems may send."""
    return sorted(all_commands())


def files() -> dict[str, str]:
    """The text of every contract file by its path below `contract/`."""
    contents: dict[str, Any] = {f"{task}.schema.json": argument_schema(task) for task in public_tasks()}
    contents[ANSWER_FILE] = {"$schema": DIALECT, "$id": ANSWER_FILE} | schemas.answer_schema()
    contents[OPTIONS_FILE] = options_schema()
    contents |= {f"{VIEW_FOLDER}{view.name}.schema.json": view_schema(view) for view in VIEWS}
    contents |= {f"examples/{task}.json": example(task) for task in public_tasks()}
    contents |= {f"examples/answer.{outcome}.json": answer.as_json() for outcome, answer in ANSWERS.items()}
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in contents.items()}


def argument_schema(task: str) -> dict[str, Any]:
    """The JSON Schema of a public task's keyword arguments."""
    schema = schemas.argument_schema(task)
    if task == "orders.cancel_many":
        schema["properties"]["orders"]["items"] = {"$ref": "orders.cancel.schema.json"}
    return {"$schema": DIALECT, "$id": f"{task}.schema.json"} | schema


def options_schema() -> dict[str, Any]:
    """The JSON Schema of the `effects` of `orders.options`. Readers must expect new fields, actions and codes."""
    time, text = {"type": "string", "format": "date-time"}, {"type": "string"}
    option = {
        "action": text | {"description": "The command that this is about."},
        "possible": {"type": "boolean", "description": "Whether the command would be done now."},
        "code": schemas.TEXT_OR_NULL | {"description": "The code with which it would be refused."},
        "why": text | {"description": "The sentence with which it would be answered."},
        "possible_from": schemas.TEXT_OR_NULL | {"format": "date-time", "description": "Set where waiting is enough."},
        "unblocked_by": text | {"description": "What would make it possible."},
    }
    step = {"action": text, "possible_from": time}
    route = {
        "role": {
            "type": "string",
            "enum": [*CANCEL_ROUTE_PARTIES],
            "description": "Whose commands and cancellation these are.",
        },
        "basis": {
            "type": "string",
            "enum": [*CancelBasis],
            "description": "The ground of the cancellation.",
        },
        "steps": _list_of(step) | {"description": "Commands, each with the earliest time; the last is orders.cancel."},
        "possible_from": time | {"description": "When the order can be cancelled, if each step is taken at its time."},
        "if_answered": schemas.TEXT_OR_NULL
        | {"format": "date-time", "description": "That time if the other party answers the alert; null: the same."},
    }
    effects = {
        "status": {"type": "string", "enum": [*Status]},
        "at": time | {"description": "The time for which this was asked."},
        "options": _list_of(option) | {"description": "Every action, possible or not."},
        "routes": _list_of(route) | {"description": "How the party, for staff each party, can cancel; earliest first."},
    }
    about = "What `effects` of a done orders.options contains."
    return {"$schema": DIALECT, "$id": OPTIONS_FILE, "title": "orders.options", "description": about} | _object(effects)


def _list_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": _object(properties)}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def view_schema(view: View) -> dict[str, Any]:
    """The JSON Schema of one row of a view, as `row_to_json` writes it. Readers must expect new columns."""
    return {
        "$schema": DIALECT,
        "$id": f"{VIEW_FOLDER}{view.name}.schema.json",
        "title": view.name,
        "description": f"Version {view.version}. {view.description}",
        "type": "object",
        "properties": {
            name: {"type": kinds[0] if len(kinds) == 1 else list(kinds), "description": description}
            for name, kinds, description in view.columns
        },
        "required": [name for name, _, _ in view.columns],
    }


def stale(folder: Path = CONTRACT) -> list[str]:
    """The files that are missing, outdated, or of no known task."""
    expected, existing = files(), _read_files(folder)
    return sorted(path for path in {*expected, *existing} if expected.get(path) != existing.get(path))


def breaking_changes(folder: Path = CONTRACT, expected: Mapping[str, str] | None = None) -> list[str]:
    """Reasons why the generated files would break clients of those in `folder`."""
    expected = files() if expected is None else expected
    reasons = []
    for path, text in sorted(_read_files(folder).items()):
        if not path.endswith(".schema.json"):
            continue
        if path not in expected:
            reasons.append(f"{path}: was removed")
            continue
        is_output = path in (ANSWER_FILE, OPTIONS_FILE) or path.startswith(VIEW_FOLDER)
        compare = breaks_readers if is_output else breaks_senders
        reasons += [f"{path}: {reason}" for reason in compare(json.loads(text), json.loads(expected[path]))]
    return reasons


def write(folder: Path = CONTRACT) -> list[str]:
    """Write the files that are stale; returns their paths."""
    expected, changed = files(), stale(folder)
    for path in changed:
        if path in expected:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(expected[path], encoding="utf-8")
        else:
            (folder / path).unlink()
    return changed


def _read_files(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.json"))
    }
