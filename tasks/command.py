"""Base classes and field types of the commands' argument models.

Each public task has one strict model. `workers.task.BaseTask` validates a message into it and answers `invalid`
otherwise, so the task itself only sees valid commands.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from models.payload_limits import is_deeper_than
from models.stored_answers import Answer, invalid_answer
from policies.cases import Actor
from policies.reasons import REASONS
from policies.texts import is_identifier, is_one_line, printable
from policies.timestamps import format_timestamp, parse_timestamp

MAX_COMMENT_LENGTH = 2000
MAX_REQUEST_ID_LENGTH = 128
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
ID_PATTERN = r"^(0|[1-9][0-9]{0,18})$"
"""An id written as text. `"01003"` and `"1e3"` do not match, so that each id has one form."""
MAX_ERRORS = 1000
"""Errors in one answer."""
MAX_DEPTH = 6
"""Nested lists and objects in one argument."""


def _validate_storable_text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain NUL")
    try:
        value.encode()  # ten megabytes take milliseconds; a check of each character takes a second
    except UnicodeEncodeError:
        raise ValueError("must not contain unpaired surrogates") from None
    return value


def validate_one_line(value: str) -> str:
    if not is_one_line(value):
        raise ValueError("must be one line of visible text")
    return value


def validate_identifier(value: str) -> str:
    if not is_identifier(value):
        raise ValueError("must be one line of visible text without invisible characters")
    return value


def _parse_timestamp_argument(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be an instant written as text, such as 2026-03-28T10:00:00Z")
    return parse_timestamp(value)


def _decimal_argument(places: int) -> Any:
    def parse(value: Any) -> Decimal:
        integer, _, fraction = value.partition(".") if isinstance(value, str) else ("", "", "")
        digits = integer.removeprefix("-")
        valid = digits.isascii() and digits.isdigit() and len(digits) <= 10 and len(fraction) <= places
        if (
            not valid
            or (fraction == "" and value.endswith("."))
            or (fraction and not (fraction.isascii() and fraction.isdigit()))
        ):
            raise ValueError(f'must be an amount written as text with at most {places} decimals, such as "20.00"')
        amount = Decimal(value)
        if amount.is_zero() and amount.is_signed():
            raise ValueError("must not be minus zero")
        return amount

    return BeforeValidator(parse)


def _decimal_schema(places: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": rf"^-?[0-9]{{1,10}}(\.[0-9]{{1,{places}}})?$"})


def _normalize_argument(value: Any) -> str:
    # Equal values get one text: `"20.0"` and `"20.00"`, `10:00Z` and `11:00+01:00`.
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime):
        return format_timestamp(value)
    raise TypeError(f"no normal form for {type(value).__name__}")


def parse_id(value: Any) -> Any:
    """Convert a string of decimal digits to the number; return anything else unchanged for the type to reject."""
    return int(value) if isinstance(value, str) and re.fullmatch(ID_PATTERN, value, re.ASCII) else value


def _id_schema(minimum: int) -> WithJsonSchema:
    # An id is a number or its digits as a string, because JavaScript rounds above 2^53.
    return WithJsonSchema(
        {"type": ["integer", "string"], "minimum": minimum, "maximum": MAX_INT64, "pattern": ID_PATTERN}
    )


_FROM_TEXT = BeforeValidator(parse_id)
OrderId = Annotated[int, Field(strict=True, ge=1, le=MAX_INT64), _FROM_TEXT, _id_schema(1)]
LotId = Annotated[int, Field(strict=True, ge=1, le=MAX_INT64), _FROM_TEXT, _id_schema(1)]
RemovalId = Annotated[int, Field(strict=True, ge=1, le=MAX_INT64), _FROM_TEXT, _id_schema(1)]
BindId = Annotated[int, Field(strict=True, ge=0, le=MAX_INT64), _FROM_TEXT, _id_schema(0)]
StrictInt = Annotated[int, Field(strict=True)]
Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_INT32)]
LineNo = Annotated[int, Field(strict=True, ge=1, le=MAX_INT32)]
StrictBool = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True), AfterValidator(_validate_storable_text)]
MemberId = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_identifier)]
Handle = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_one_line)]
StaffName = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_identifier)]
Comment = Annotated[Text, StringConstraints(max_length=MAX_COMMENT_LENGTH)]
CodeText = Annotated[Text, StringConstraints(min_length=1, max_length=64)]
_REASONS = {code: words for reasons in REASONS.values() for code, words in reasons.items()}
Reason = Annotated[
    CodeText,
    WithJsonSchema({"type": "string", "enum": list(_REASONS), "enumDescriptions": list(_REASONS.values())}),
]
"""Any other text is a reason that does not exist: refused, not invalid."""
_REQUEST_ID = r"^[A-Za-z0-9._:\-]{1,128}$"
RequestId = Annotated[
    Text, StringConstraints(pattern=_REQUEST_ID), WithJsonSchema({"type": "string", "pattern": _REQUEST_ID})
]
DraftId = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_identifier)]
TimestampText = Annotated[datetime, BeforeValidator(_parse_timestamp_argument)]
Amount = Annotated[Decimal, _decimal_argument(2), _decimal_schema(2)]
UnitPrice = Annotated[Decimal, _decimal_argument(4), _decimal_schema(4)]
UsdRate = Annotated[Decimal, _decimal_argument(8), _decimal_schema(8)]


ONE_ACTOR = "exactly one of member_id and staff must be given"


class StrictModel(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,  # until the first message of this kind: building all took a tenth of the import time
    )


class Command(StrictModel):
    """Arguments that every public task takes. `request_id` is the idempotency key and defaults to the task id."""

    task: ClassVar[str]
    """The task's name on the wire."""
    request_id: RequestId
    runs_alone: ClassVar[bool] = False
    """Whether each message runs by itself, not in one transaction with others of its kind."""
    # Set by `accept`: when a submission by SQL was inserted. Not a field, because a message must not set it.
    accepted_at: ClassVar[datetime | None] = None

    def accept(self, at: datetime) -> None:
        object.__setattr__(self, "accepted_at", at)

    @property
    def fingerprint(self) -> bytes:
        arguments = self.model_dump(exclude={"request_id"}, exclude_defaults=True)
        text = json.dumps([self.task, arguments], sort_keys=True, separators=(",", ":"), default=_normalize_argument)
        return hashlib.sha256(text.encode()).digest()

    @property
    def subject(self) -> int | None:
        order_id: int | None = getattr(self, "order_id", None)
        return order_id


class ActorCommand(Command):
    """A command sent by a party of the order (`member_id`) or by staff (`staff`): exactly one of them."""

    member_id: MemberId | None = None
    staff: StaffName | None = None
    occurred_at: TimestampText | None = None

    @model_validator(mode="after")
    def _exactly_one_actor(self) -> ActorCommand:
        if (self.member_id is None) == (self.staff is None):
            raise ValueError(ONE_ACTOR)
        return self

    @property
    def actor(self) -> Actor:
        return Actor(self.member_id, self.staff)


class OrderCommand(ActorCommand):
    order_id: OrderId


class OrderFact(Command):
    order_id: OrderId
    member_id: ClassVar[None] = None
    actor: ClassVar[None] = None
    occurred_at: ClassVar[None] = None


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
    request_id = (
        values["request_id"] if _is_request_id(values["request_id"]) else message_id[:128]
    )  # answers never echo bad values
    if positional:
        return invalid_answer(request_id, [("args", "only keyword arguments are accepted")])
    if deep_names := [name for name, value in values.items() if is_deeper_than(value, MAX_DEPTH)]:
        return invalid_answer(request_id, [(_argument_path((name,)), "is nested too deeply") for name in deep_names])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = {_path_and_message(e) for e in error.errors(include_url=False)}
        if issubclass(model, ActorCommand) and (values.get("member_id") is None) == (values.get("staff") is None):
            problems.add(("member_id", ONE_ACTOR))  # pydantic checks the model as a whole only if each field is valid
        return invalid_answer(request_id, sorted(problems)[:MAX_ERRORS])


def _is_request_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(_REQUEST_ID, value) is not None and not value.endswith("\n")


TYPED_VALUE_KEYS = ("__type__", "__value__")
"""Keys of the object that kombu's serializer writes for a value without a JSON type."""


def _path_and_message(error: Any) -> tuple[str, str]:
    # Convert one pydantic error. All errors of a value that kombu wrote with its type become the same one.
    location: tuple[int | str, ...] = error["loc"]
    if len(location) > 1 and location[-1] in TYPED_VALUE_KEYS:
        return _argument_path(location[:-1]), NOT_PLAIN_JSON
    if isinstance(error["input"], dict) and TYPED_VALUE_KEYS[0] in error["input"]:
        location_of_value = location[:-1] if error["type"] == "missing" else location
        if location_of_value:
            return _argument_path(location_of_value), NOT_PLAIN_JSON
    return _argument_path(location), _argument_message(error)


NOT_PLAIN_JSON = "must be plain JSON: write ids, amounts and instants as text"


def _argument_path(location: tuple[int | str, ...]) -> str:
    # Errors of the model as a whole concern the actor. The name of an unknown argument is the caller's text, so it is
    # cut and made printable.
    return ".".join(printable(str(part)[:64]) or "?" for part in location) or "member_id"


BRICKLINK_LOT_FIELDS = {
    "inventory_id": "is BrickLink's name of lot_id: send it as lot_id",
    "name": "is BrickLink's and not stored: leave it out",
    "category_id": "is BrickLink's and not stored: leave it out",
    "categoryID": "is BrickLink's and not stored: leave it out",
    "color_name": "is BrickLink's and not stored: leave it out",
    "date_created": "is BrickLink's and not stored: leave it out",
}
"""Fields of the inventory resource of BrickLink's API that a lot does not have."""


def _argument_message(error: Any) -> str:
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden" and "lot" in error["loc"][:-1] and error["loc"][-1] in BRICKLINK_LOT_FIELDS:
        return BRICKLINK_LOT_FIELDS[error["loc"][-1]]
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
    return _ARGUMENT_MESSAGES.get(kind) or message.removeprefix("Value error, ")


_ARGUMENT_MESSAGES = {
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
UNFITTING_ARGUMENTS = {
    _ARGUMENT_MESSAGES["extra_forbidden"],
    _ARGUMENT_MESSAGES["missing"],
    ONE_ACTOR,
    *BRICKLINK_LOT_FIELDS.values(),
}
"""The sentences for arguments that a command does not have, or that it needs."""
