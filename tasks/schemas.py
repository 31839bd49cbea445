"""JSON Schemas of the commands' arguments and answers, for `contract/` and OpenAPI."""

from __future__ import annotations

from typing import Any

from policies.verdicts import Code
from tasks.command import ActorCommand
from tasks.declarations import COMMANDS

OUTCOMES = ("done", "refused", "invalid", "conflict")
TEXT_OR_NULL = {"type": ["string", "null"]}


def argument_schema(task: str, *, ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    model = COMMANDS[task].model
    schema: dict[str, Any] = _plain_schema(model.model_json_schema(by_alias=True, ref_template=ref_template))
    # The message id is used where the request id is missing.
    schema["required"] = [name for name in schema["required"] if name != "request_id"]
    if not schema["required"]:
        del schema["required"]
    if issubclass(model, ActorCommand):
        schema["oneOf"] = [_requires("member_id", "staff"), _requires("staff", "member_id")]
    return {"title": task, "description": COMMANDS[task].about} | schema


def answer_schema() -> dict[str, Any]:
    error = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
        "required": ["path", "message"],
    }
    properties: dict[str, Any] = {
        "outcome": {"type": "string", "enum": list(OUTCOMES)},
        "code": {"type": ["string", "null"], "enum": [*(str(code) for code in Code), None]},
        "message": {"type": "string"},
        "request_id": {"type": "string"},
        "order_id": {"type": ["integer", "null"]},
        "possible_from": TEXT_OR_NULL | {"format": "date-time"},
        "errors": {"type": "array", "items": error},
        "effects": {"type": "object"},
        "replayed": {"type": "boolean"},
    }
    by_outcome: dict[str, Any] = {
        "refused": {"code": {"type": "string"}},
        "conflict": {"code": {"const": str(Code.REQUEST_ID_REUSED)}},
        "invalid": {"code": {"type": "null"}, "errors": {"minItems": 1}},
        "done": {"code": {"type": "null"}},
    }
    return {
        "title": "answer",
        "description": "What every public task returns; it never raises for bad input or for a rule that says no.",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "allOf": [
            {"if": {"properties": {"outcome": {"const": outcome}}}, "then": {"properties": schemas}}
            for outcome, schemas in by_outcome.items()
        ],
    }


def _plain_schema(part: Any, *, names: bool = False) -> Any:
    # Remove titles and descriptions, which are for readers of the code; `names`: the keys are field names.
    if isinstance(part, list):
        return [_plain_schema(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: _plain_schema(value, names=not names and key in ("properties", "$defs"))
        for key, value in part.items()
        if names or key not in ("title", "description")
    }


def _requires(present: str, missing: str) -> dict[str, Any]:
    return {"required": [present], "properties": {present: {"type": "string"}, missing: {"type": "null"}}}
