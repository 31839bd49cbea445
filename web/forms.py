"""The forms of the Problem Order page: a command's fields, and how typed input becomes its arguments."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from policies.options import ACTIONS
from policies.reasons import VALID_REASONS
from policies.statuses import Role
from tasks.declarations import COMMANDS
from tasks.drafts import ValueChoices
from web.api import read_body
from web.problems import Problem

MAX_FIELDS = 5000
NOT_IN_FORMS = ("request_id", "order_id", "member_id", "staff", "occurred_at", "removal_id", "draft_id", "dry_run")
EDITABLE = ("unit_price", "description", "remarks", "bulk", "sale_rate", "my_cost", "my_weight", "reserved_for")
"""The fields of a line that step 2 of the edit offers."""
FORM_LABELS = {
    "comment": "Your comment",
    "until": "Until (in UTC, such as 2026-04-20T10:00:00Z)",
    "grounds": "What is wrong",
    "status": "New status",
    "return_items": "Put the items back into the inventory",
    "lines": "Units to take out of each line",
    "NOT_SHIPPED": "nothing was sent",
    "INCOMPLETE": "something is missing",
}
"""Of the names and codes that do not say it themselves."""


def form_label(name: str) -> str:
    words = name.replace("_", " ")
    return FORM_LABELS.get(name) or (words.lower() if words.isupper() else words.capitalize())


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: str
    required: bool
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return form_label(self.name)


@dataclass(frozen=True, slots=True)
class ActionForm:
    action: str
    title: str
    note: str
    fields: Sequence[Field]
    removal_id: int | None = None

    @property
    def key(self) -> str:
        return self.action if self.removal_id is None else f"{self.action}-{self.removal_id}"


def action_form(option: Mapping[str, Any], role: Role) -> ActionForm:
    action = option["action"]
    fields = [
        Field(name, *_field_kind(action, name, info, option, role))
        for name, info in COMMANDS[action].model.model_fields.items()
        if name not in NOT_IN_FORMS and not (action == "orders.cancel" and name == "reason")
    ]
    label = ACTIONS[action].label
    return ActionForm(action, label[:1].upper() + label[1:], option["why"], fields, option.get("removal_id"))


def _field_kind(
    action: str, name: str, info: Any, option: Mapping[str, Any], role: Role
) -> tuple[str, bool, Mapping[str, str]]:
    required = info.is_required()
    if name == "reason":
        return "select", required, VALID_REASONS[role]
    if name == "status":
        return "select", required, {status: status for status in option["values"]}
    if name == "grounds":
        return "select", required, {ground: form_label(ground) for ground in typing.get_args(info.annotation)}
    if name == "return_items":
        return ("checkbox" if role is Role.SELLER and action != "removals.withdraw" else "hidden"), False, {}
    return ("lines" if name == "lines" else "textarea"), required, {}


async def read_form(request: Request) -> dict[str, str]:
    body = await read_body(request, "application/x-www-form-urlencoded")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS, separator="&"
        )
    except ValueError:
        raise Problem(400, "This is no form.") from None
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


def typed_arguments(form: ActionForm, typed: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of a command from the typed input; invalid input is left to the command's validation."""
    arguments: dict[str, Any] = {} if form.removal_id is None else {"removal_id": form.removal_id}
    for form_field in form.fields:
        if form_field.kind == "checkbox":
            arguments[form_field.name] = form_field.name in typed
        elif form_field.kind == "lines":
            numbers = {name.removeprefix("line-"): text for name, text in typed.items() if name.startswith("line-")}
            arguments["lines"] = [
                {"line_no": _number(line_no), "quantity": _number(text)} for line_no, text in numbers.items() if text
            ]
        elif form_field.kind != "hidden" and (form_field.required or typed.get(form_field.name, "").strip()):
            arguments[form_field.name] = typed.get(form_field.name, "")
    return arguments


def consolidation_form_choices() -> dict[str, list[str]]:
    return {name: list(typing.get_args(info.annotation)) for name, info in ValueChoices.model_fields.items()}


def edited_form_lines(typed: Mapping[str, str], line_numbers: Sequence[int]) -> list[dict[str, Any]]:
    lines = []
    for line_no in line_numbers:
        fields = {
            name: _number(text) if name in ("bulk", "sale_rate") else text
            for name in EDITABLE
            if (text := typed.get(f"{name}-{line_no}", "").strip())
        }
        line: dict[str, Any] = {"line_no": line_no}
        if f"delete-{line_no}" in typed:
            line["delete"] = True
        elif quantity := typed.get(f"quantity-{line_no}", "").strip():
            line["quantity"] = _number(quantity)
        lines.append(line | ({"fields": fields} if fields and "delete" not in line else {}))
    return [line for line in lines if len(line) > 1]


def _number(text: str) -> int | str:
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) < 20 else stripped
