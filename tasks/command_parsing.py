"""The parsing of a message's arguments into a command, and the errors for arguments that are not valid."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from models.payload_limits import exceeds_payload_depth
from models.stored_answers import Answer
from policies.texts import replace_unprintable
from tasks.command import MAX_REQUEST_ID_LENGTH, ONE_ACTOR, REQUEST_ID_PATTERN, ActorCommand, Command

MAX_ARGUMENT_ERRORS = 1000
"""Errors in one answer."""
MAX_ARGUMENT_DEPTH = 6
"""Nested lists and objects in one argument."""
NOT_PLAIN_JSON_ERROR = "must be plain JSON: write ids, amounts and instants as text"
_KOMBU_VALUE_KEYS = ("__type__", "__value__")
"""Keys of the object that kombu's serializer writes for a value without a JSON type."""
BRICKLINK_ARGUMENT_ERRORS = {
    "inventory_id": "is BrickLink's name of lot_id: send it as lot_id",
    "name": "is BrickLink's and not stored: leave it out",
    "category_id": "is BrickLink's and not stored: leave it out",
    "categoryID": "is BrickLink's and not stored: leave it out",
    "color_name": "is BrickLink's and not stored: leave it out",
    "date_created": "is BrickLink's and not stored: leave it out",
}
"""Fields of the inventory resource of BrickLink's API that a lot does not have."""
_ARGUMENT_ERROR_SENTENCES = {
    "extra_forbidden": "there is no such argument",
    "missing": "is missing",
    "int_type": "must be a whole number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "string_pattern_mismatch": "has a form that is not allowed here",
    "string_unicode": "must be text without unpaired surrogates",
}
"""Sentences in place of pydantic's, by the type of its error."""
UNFITTING_ARGUMENT_ERRORS = {
    _ARGUMENT_ERROR_SENTENCES["extra_forbidden"],
    _ARGUMENT_ERROR_SENTENCES["missing"],
    ONE_ACTOR,
    *BRICKLINK_ARGUMENT_ERRORS.values(),
}
"""The sentences for arguments that a command does not have, or that it needs."""

CommandT = TypeVar("CommandT", bound=Command)


def parse_command(
    model: type[CommandT], arguments: Mapping[str, Any], message_id: str, *, positional: int = 0
) -> CommandT | Answer:
    """Validate `arguments` into a `model`, or return the `invalid` answer with one error per bad argument.

    `message_id` is the default request id; `positional` is the number of positional arguments, which are not accepted.
    """
    values = dict(arguments)
    if values.get("request_id") is None:
        values["request_id"] = message_id
    request_id = values["request_id"]
    if not isinstance(request_id, str) or not re.fullmatch(REQUEST_ID_PATTERN, request_id):
        request_id = message_id[:MAX_REQUEST_ID_LENGTH]  # answers never echo bad values
    if positional:
        return Answer.invalid(request_id, [("args", "only keyword arguments are accepted")])
    too_deep = [
        (_argument_error_path((name,)), "is nested too deeply")
        for name, value in values.items()
        if isinstance(value, dict | list) and exceeds_payload_depth(value, MAX_ARGUMENT_DEPTH)
    ]
    if too_deep:
        return Answer.invalid(request_id, too_deep)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = {_argument_error(e) for e in error.errors(include_url=False)}
        if issubclass(model, ActorCommand) and (values.get("member_id") is None) == (values.get("staff") is None):
            problems.add(("member_id", ONE_ACTOR))  # pydantic checks the model as a whole only if each field is valid
        return Answer.invalid(request_id, sorted(problems)[:MAX_ARGUMENT_ERRORS])


def _argument_error(error: Any) -> tuple[str, str]:
    # Convert one pydantic error. All errors of a value that kombu wrote with its type become the same one.
    location: tuple[int | str, ...] = error["loc"]
    if len(location) > 1 and location[-1] in _KOMBU_VALUE_KEYS:
        return _argument_error_path(location[:-1]), NOT_PLAIN_JSON_ERROR
    if isinstance(error["input"], dict) and _KOMBU_VALUE_KEYS[0] in error["input"]:
        location_of_value = location[:-1] if error["type"] == "missing" else location
        if location_of_value:
            return _argument_error_path(location_of_value), NOT_PLAIN_JSON_ERROR
    return _argument_error_path(location), _argument_error_sentence(error)


def _argument_error_path(location: tuple[int | str, ...]) -> str:
    # Errors of the model as a whole concern the actor. The name of an unknown argument is the caller's text, so it is
    # cut and made printable.
    return ".".join(replace_unprintable(str(part)[:64]) or "?" for part in location) or "member_id"


def _argument_error_sentence(error: Any) -> str:
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden" and "lot" in error["loc"][:-1] and error["loc"][-1] in BRICKLINK_ARGUMENT_ERRORS:
        return BRICKLINK_ARGUMENT_ERRORS[error["loc"][-1]]
    if kind in ("too_long", "string_too_long"):
        # pydantic measures text with after-validators like a list and says "items".
        items = "items" if error["ctx"].get("field_type") == "List" else "characters"
        return f"must have at most {error['ctx']['max_length']} {items}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    if kind == "literal_error":
        return f"must be {error['ctx']['expected']}"
    if kind in ("greater_than_equal", "less_than_equal"):
        limit = "at least" if kind == "greater_than_equal" else "at most"
        return f"must be {limit} {next(iter(error['ctx'].values()))}"
    if kind == "int_type" and str(error["loc"][-1]).endswith("_id"):
        return "must be an id: a whole number, or its digits as text"
    return _ARGUMENT_ERROR_SENTENCES.get(kind) or message.removeprefix("Value error, ")
