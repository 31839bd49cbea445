"""Tests of the contract files and of the detection of breaking changes."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from models.stored_answers import Answer
from policies.reasons import REASONS
from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from tools import contract_files
from tools.contract_changes import breaks_readers, breaks_senders
from tools.contract_messages import ANSWERS, arguments_of
from workers.settings import CHECKOUT

GENERATED = {path: json.loads(text) for path, text in contract_files.files().items()}
REGISTRY: Registry[Any] = Registry().with_resources(
    (path, Resource.from_contents(schema)) for path, schema in GENERATED.items() if path.endswith(".schema.json")
)


def fits(path: str, value: Any) -> bool:
    """Whether a value fits a contract schema."""
    checker = jsonschema.Draft202012Validator(GENERATED[path], registry=REGISTRY)
    return not list(checker.iter_errors(value))


def test_every_public_task_has_a_schema_and_an_example() -> None:
    tasks = contract_files.public_tasks()
    assert {f"{task}.schema.json" for task in tasks} | {"answer.schema.json", "orders.options.effects.schema.json"} == {
        p for p in GENERATED if "/" not in p
    }
    assert {f"examples/{task}.json" for task in tasks} | {f"examples/answer.{o}.json" for o in ANSWERS} == {
        p for p in GENERATED if p.startswith("examples/")
    }
    for path in REGISTRY:
        jsonschema.Draft202012Validator.check_schema(GENERATED[path])


@pytest.mark.parametrize("task", contract_files.public_tasks())
def test_examples_are_valid_for_schema_and_model(task: str) -> None:
    example = GENERATED[f"examples/{task}.json"]
    body = json.loads(base64.b64decode(example["message"]["body"]))
    assert body[:2] == [[], example["arguments"]]
    assert fits(f"{task}.schema.json", example["arguments"])
    model = COMMANDS[task].model
    assert not isinstance(parse_command(model, example["arguments"], "m"), Answer)


@pytest.mark.parametrize("task", contract_files.public_tasks())
def test_no_schema_is_stricter_than_its_task(task: str) -> None:
    model = COMMANDS[task].model
    for changed in _invalid_variants(arguments_of(task)):
        if not fits(f"{task}.schema.json", changed) and task != "orders.cancel_many":
            assert isinstance(parse_command(model, changed, "m"), Answer), changed


def _invalid_variants(arguments: dict[str, Any]) -> list[dict[str, Any]]:
    variants: list[dict[str, Any]] = [arguments | {"surplus": 1}, arguments | {"staff": "x", "member_id": "y"}]
    for name in arguments:
        variants.append({key: value for key, value in arguments.items() if key != name})
        wrong: tuple[Any, ...] = (True, 1.5, "", "x" * 3000, [], {}, -1, 2**63)
        variants += [arguments | {name: value} for value in wrong]
    return variants


@pytest.mark.parametrize("task", ["ocr.file", "orders.cancel"])
def test_reasons_are_listed_with_a_line_each(task: str) -> None:
    reason = GENERATED[f"{task}.schema.json"]["properties"]["reason"]
    listed = reason.get("anyOf", [reason])[0]
    known = {code: words for reasons in REASONS.values() for code, words in reasons.items()}
    assert dict(zip(listed["enum"], listed["enumDescriptions"], strict=True)) == known
    page = (CHECKOUT / "docs" / "support.md").read_text(encoding="utf-8")
    assert all(f"- `{code}`: " in page for code in known)


def test_answer_schema_accepts_answers_only() -> None:
    for outcome, answer in ANSWERS.items():
        assert fits("answer.schema.json", answer.as_json()), outcome
    refused = ANSWERS["refused"].as_json()
    for wrong in ({"code": None}, {"code": "BECAUSE"}, {"outcome": "perhaps"}, {"errors": None}, {"order_id": "1003"}):
        assert not fits("answer.schema.json", refused | wrong)
    assert not fits("answer.schema.json", {k: v for k, v in refused.items() if k != "replayed"})


BASE: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["a"],
    "properties": {
        "a": {"type": "integer", "minimum": 1, "maximum": 9},
        "b": {"type": "string", "minLength": 1, "maxLength": 64},
        "c": {"anyOf": [{"type": "string", "enum": ["x", "y"]}, {"type": "null"}]},
        "d": {"type": "array", "maxItems": 10, "items": {"$ref": "#/$defs/Line"}},
    },
    "$defs": {
        "Line": {
            "type": "object",
            "additionalProperties": False,
            "required": ["n"],
            "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}},
        }
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """BASE with the value at a path replaced; None removes it."""
    schema = copy.deepcopy(BASE)
    *way, last = path.split("/")
    at: Any = schema
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return schema


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/b", None),  # removed field
        ("required", ["a", "b"]),  # new required field
        ("properties/a/type", "string"),
        ("properties/a/maximum", 8),
        ("properties/a/minimum", 2),
        ("properties/b/maxLength", 63),
        ("properties/b/minLength", 2),
        ("properties/b/pattern", "^x"),
        ("properties/b/format", "date-time"),
        ("properties/b/enum", ["x"]),
        ("properties/c/anyOf/0/enum", ["x"]),
        ("properties/c", {"type": "string", "enum": ["x", "y"]}),  # null no more
        ("properties/d/maxItems", 9),
        ("properties/d/items", {"type": "integer"}),
        ("$defs/Line/required", ["n", "m"]),
        ("$defs/Line/properties/m", None),
        ("oneOf", [{"required": ["b"]}]),
    ],
)
def test_changes_that_break_senders_are_detected(path: str, value: Any) -> None:
    assert breaks_senders(BASE, changed(path, value)) != []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("properties/e", {"type": "string"}),
        ("required", []),
        ("properties/a/maximum", 10),
        ("properties/a/maximum", None),
        ("properties/a/type", "number"),
        ("properties/b/maxLength", 65),
        ("properties/b", {"anyOf": [{"type": "string", "minLength": 1, "maxLength": 64}, {"type": "null"}]}),
        ("properties/c/anyOf/0/enum", ["x", "y", "z"]),
        ("$defs/Line/properties/o", {"type": "string"}),
        ("additionalProperties", True),
    ],
)
def test_permissive_changes_break_no_sender(path: str, value: Any) -> None:
    assert breaks_senders(BASE, changed(path, value)) == []


@pytest.mark.parametrize(
    ("path", "value", "breaks"),
    [
        ("properties/b", None, True),
        ("required", [], True),
        ("properties/a/type", "string", True),
        ("properties/c/anyOf/0/enum", ["x"], True),
        ("properties/c/anyOf/0/enum", ["x", "y", "z"], False),
        ("properties/e", {"type": "string"}, False),
        ("required", ["a", "b"], False),
        ("$defs/Line/properties/m", None, True),
    ],
)
def test_changes_that_break_readers_are_detected(path: str, value: Any, breaks: bool) -> None:
    assert bool(breaks_readers(BASE, changed(path, value))) is breaks


def test_breaking_changes_are_reported_before_files_are_replaced(tmp_path: Path) -> None:
    contract_files.write(tmp_path)
    assert contract_files.stale(tmp_path) == []
    published = json.loads((tmp_path / "npb.file.schema.json").read_text())
    published["properties"]["old"] = {"type": "string"}
    (tmp_path / "npb.file.schema.json").write_text(json.dumps(published))
    (tmp_path / "npb.old.schema.json").write_text("{}")
    answer = json.loads((tmp_path / "answer.schema.json").read_text())
    del answer["properties"]["replayed"]
    (tmp_path / "answer.schema.json").write_text(json.dumps(answer))
    assert contract_files.breaking_changes(tmp_path) == [
        "npb.file.schema.json: old: was removed",
        "npb.old.schema.json: was removed",
    ]
    assert contract_files.stale(tmp_path) == ["answer.schema.json", "npb.file.schema.json", "npb.old.schema.json"]
    contract_files.write(tmp_path)
    assert contract_files.stale(tmp_path) == []
    assert not (tmp_path / "npb.old.schema.json").exists()
