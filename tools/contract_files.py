"""What exactly may be sent, and what comes back?  `contract/`: JSON Schemas and example messages, made from the argument models.

One schema for the arguments of each public task, one for the answer, examples of both, and one for a row of each view.  They
are committed, a test compares them with the code, and `./run docs` refuses to write a form that would break somebody who relies
on the form before.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.ddl.views import VIEWS, View
from policies.verdicts import Code
from tasks.command import ActorCommand
from tools.contract_changes import breaks_readers, breaks_senders
from tools.contract_messages import ANSWERS, example
from workers.settings import CHECKOUT
from workers.task import command_model

CONTRACT = CHECKOUT / "contract"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
ANSWER_FILE = "answer.schema.json"
VIEW_FOLDER = "views/"

_RULE_ID = re.compile(r" \(\[?[A-Z]+[0-9]+\]?\)")
"""Ids of rules mean something to readers of the code only."""
_TEXT_OR_NULL = {"type": ["string", "null"]}


def public_tasks() -> list[str]:
    """The wire names of the tasks that upstream systems may send."""
    from workers.app import app

    return sorted(
        name for name, task in app.tasks.items() if not name.startswith("celery.") and command_model(task) is not None
    )


def files() -> dict[str, str]:
    """All contract files as they must be: text by path below `contract/`."""
    made: dict[str, Any] = {f"{task}.schema.json": argument_schema(task) for task in public_tasks()}
    made[ANSWER_FILE] = answer_schema()
    made |= {f"{VIEW_FOLDER}{view.name}.schema.json": view_schema(view) for view in VIEWS}
    made |= {f"examples/{task}.json": example(task) for task in public_tasks()}
    made |= {f"examples/answer.{outcome}.json": answer.as_json() for outcome, answer in ANSWERS.items()}
    return {path: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for path, content in made.items()}


def argument_schema(task: str) -> dict[str, Any]:
    """JSON Schema of a public task's keyword arguments.  What it lets through may still be `invalid` for finer reasons."""
    from workers.app import app

    model = command_model(app.tasks[task])
    assert model is not None, f"{task} takes no commands"
    schema: dict[str, Any] = _plain(model.model_json_schema(by_alias=True))
    # The id of the message stands in for a missing request id (contract 2).
    schema["required"] = [name for name in schema["required"] if name != "request_id"]
    if not schema["required"]:
        del schema["required"]
    if issubclass(model, ActorCommand):
        schema["oneOf"] = [_only("member_id", "staff"), _only("staff", "member_id")]
    if task == "orders.cancel_many":
        schema["properties"]["orders"]["items"] = {"$ref": "orders.cancel.schema.json"}
    about = _RULE_ID.sub("", (inspect.getdoc(app.tasks[task].run) or "").partition("\n")[0])
    return {"$schema": DIALECT, "$id": f"{task}.schema.json", "title": task, "description": about} | schema


def answer_schema() -> dict[str, Any]:
    """JSON Schema of the object that every public task returns (contract 2.1).  Readers must expect new fields and codes."""
    error = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
        "required": ["path", "message"],
    }
    properties: dict[str, Any] = {
        "outcome": {"type": "string", "enum": list(ANSWERS)},
        "code": {"type": ["string", "null"], "enum": [*(str(code) for code in Code), None]},
        "message": {"type": "string"},
        "request_id": {"type": "string"},
        "order_id": {"type": ["integer", "null"]},
        "possible_from": _TEXT_OR_NULL | {"format": "date-time"},
        "errors": {"type": "array", "items": error},
        "effects": {"type": "object"},
        "replayed": {"type": "boolean"},
    }
    return {
        "$schema": DIALECT,
        "$id": ANSWER_FILE,
        "title": "answer",
        "description": "What every public task returns; it never raises for bad input or for a rule that says no.",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "allOf": [
            {"if": _says("refused"), "then": {"properties": {"code": {"type": "string"}}}},
            {"if": _says("conflict"), "then": {"properties": {"code": {"const": str(Code.REQUEST_ID_REUSED)}}}},
            {"if": _says("invalid"), "then": {"properties": {"code": {"type": "null"}, "errors": {"minItems": 1}}}},
            {"if": _says("done"), "then": {"properties": {"code": {"type": "null"}}}},
        ],
    }


def view_schema(view: View) -> dict[str, Any]:
    """JSON Schema of one row of a view, as PostgreSQL's `row_to_json` writes it.  Readers must expect new columns."""
    return {
        "$schema": DIALECT,
        "$id": f"{VIEW_FOLDER}{view.name}.schema.json",
        "title": view.name,
        "description": f"Version {view.version}. {view.about}",
        "type": "object",
        "properties": {
            name: {"type": kinds[0] if len(kinds) == 1 else list(kinds), "description": said}
            for name, kinds, said in view.columns
        },
        "required": [name for name, _, _ in view.columns],
    }


def stale(folder: Path = CONTRACT) -> list[str]:
    """The files that are missing, other than they must be, or there for no task of ours."""
    wanted, there = files(), _there(folder)
    return sorted(path for path in {*wanted, *there} if wanted.get(path) != there.get(path))


def breaking_changes(folder: Path = CONTRACT, wanted: Mapping[str, str] | None = None) -> list[str]:
    """Why the files of the code would break somebody who relies on those in `folder`; empty when nobody is."""
    wanted = files() if wanted is None else wanted
    found = []
    for path, text in sorted(_there(folder).items()):
        if not path.endswith(".schema.json"):
            continue
        if path not in wanted:
            found.append(f"{path}: was taken away")
            continue
        read = path == ANSWER_FILE or path.startswith(VIEW_FOLDER)
        judge = breaks_readers if read else breaks_senders
        found += [f"{path}: {why}" for why in judge(json.loads(text), json.loads(wanted[path]))]
    return found


def write(folder: Path = CONTRACT) -> list[str]:
    """Bring the folder to what the code says; gives the files that changed."""
    wanted, changed = files(), stale(folder)
    for path in changed:
        if path in wanted:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(wanted[path], encoding="utf-8")
        else:
            (folder / path).unlink()
    return changed


def _there(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.json"))
    }


def _plain(part: Any, *, names: bool = False) -> Any:
    """Without the titles and descriptions that are for readers of the code; `names`: the keys here are names of fields."""
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _plain(value, names=not names and key in ("properties", "$defs"))
        for key, value in part.items()
        if names or key not in ("title", "description")
    }


def _only(given: str, missing: str) -> dict[str, Any]:
    return {"required": [given], "properties": {given: {"type": "string"}, missing: {"type": "null"}}}


def _says(outcome: str) -> dict[str, Any]:
    return {"properties": {"outcome": {"const": outcome}}}
