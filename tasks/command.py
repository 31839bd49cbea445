"""What does a command look like when it comes in?  Argument models, strict: nothing is converted, nothing guessed.

Each public task has one model.  The job base class validates a message into it and answers `invalid` otherwise
(contract 2.1); the task itself only ever sees good commands.
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

from models.requests import Answer, invalid
from policies.cases import Actor
from policies.texts import is_identifier, is_one_line
from policies.timestamps import format_timestamp, parse_timestamp

MAX_COMMENT_LENGTH = 2000
MAX_REQUEST_ID_LENGTH = 128
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
ID_PATTERN = r"^(0|[1-9][0-9]{0,18})$"
"""An id written as text; `"01003"` and `"1e3"` are no ids, so that each id has one form."""
MAX_ERRORS = 1000
"""Errors that one answer names."""
MAX_DEPTH = 6
"""Levels of lists and objects in one argument (reliability.md 8)."""


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain NUL")
    try:
        value.encode()  # ten megabytes in milliseconds, where looking at each character takes a second
    except UnicodeEncodeError:
        raise ValueError("must not contain unpaired surrogates") from None
    return value


def validate_one_line(value: str) -> str:
    """The text, if it is one line that says something.  Raises ValueError."""
    if not is_one_line(value):
        raise ValueError("must be one line of visible text")
    return value


def validate_identifier(value: str) -> str:
    """The text, if it can name something.  Raises ValueError."""
    if not is_identifier(value):
        raise ValueError("must be one line of visible text without invisible characters")
    return value


def _instant(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be an instant written as text, such as 2026-03-28T10:00:00Z")
    return parse_timestamp(value)


def _decimal(places: int) -> Any:
    def read(value: Any) -> Decimal:
        whole, _, fraction = value.partition(".") if isinstance(value, str) else ("", "", "")
        digits = whole.removeprefix("-")
        fits = digits.isascii() and digits.isdigit() and len(digits) <= 10 and len(fraction) <= places
        if (
            not fits
            or (fraction == "" and value.endswith("."))
            or (fraction and not (fraction.isascii() and fraction.isdigit()))
        ):
            raise ValueError(f'must be an amount written as text with at most {places} decimals, such as "20.00"')
        amount = Decimal(value)
        if amount.is_zero() and amount.is_signed():
            raise ValueError("must not be minus zero")
        return amount

    return BeforeValidator(read)


def _written(places: int) -> WithJsonSchema:
    """What the contract files say of such an amount (contract 2: decimal strings, never JSON floats)."""
    return WithJsonSchema({"type": "string", "pattern": rf"^-?[0-9]{{1,10}}(\.[0-9]{{1,{places}}})?$"})


def _normalised(value: Any) -> str:
    """`"20.0"` and `"20.00"` are one amount, `+01:00` and `Z` one instant."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime):
        return format_timestamp(value)
    raise TypeError(f"no normal form for {type(value).__name__}")


def parse_id(value: Any) -> Any:
    """The number that a string of decimal digits means; anything else as it is, for the type to judge."""
    return int(value) if isinstance(value, str) and re.fullmatch(ID_PATTERN, value, re.ASCII) else value


def _id_schema(least: int) -> WithJsonSchema:
    """What the contract files say of an id: a number, or its digits as a string, for JavaScript rounds above 2^53."""
    return WithJsonSchema(
        {"type": ["integer", "string"], "minimum": least, "maximum": MAX_INT64, "pattern": ID_PATTERN}
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
Text = Annotated[str, Field(strict=True), AfterValidator(_storable)]
MemberId = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_identifier)]
Handle = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_one_line)]
StaffName = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_identifier)]
Comment = Annotated[Text, StringConstraints(max_length=MAX_COMMENT_LENGTH)]
CodeText = Annotated[Text, StringConstraints(min_length=1, max_length=64)]
_REQUEST_ID = r"^[A-Za-z0-9._:\-]{1,128}$"
RequestId = Annotated[
    Text, StringConstraints(pattern=_REQUEST_ID), WithJsonSchema({"type": "string", "pattern": _REQUEST_ID})
]
DraftId = Annotated[Text, StringConstraints(min_length=1, max_length=64), AfterValidator(validate_identifier)]
TimestampText = Annotated[datetime, BeforeValidator(_instant)]
Amount = Annotated[Decimal, _decimal(2), _written(2)]
UnitPrice = Annotated[Decimal, _decimal(4), _written(4)]
UsdRate = Annotated[Decimal, _decimal(8), _written(8)]


class StrictModel(BaseModel):
    """A piece of a command's arguments: frozen, and without room for what nobody asked for."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,  # by the first message of its kind: building all at import took a tenth of it (B15)
    )


class Command(StrictModel):
    """What all public tasks take.  `request_id` is the idempotency key; the task id stands in for it when it is missing."""

    task: ClassVar[str]
    """The frozen wire name."""
    request_id: RequestId
    accepted_at: ClassVar[datetime | None] = None
    """When a door took the command, where it waited since: the instant of a submission by SQL (contract 2).  Of the one command
    where `accept` said it; no field, for those are what a message may say."""

    def accept(self, at: datetime) -> None:
        """A door took the command then."""
        object.__setattr__(self, "accepted_at", at)

    @property
    def fingerprint(self) -> bytes:
        """Hash of the task and its normalised arguments: sameness of two requests (contract 2.1)."""
        arguments = self.model_dump(exclude={"request_id"}, exclude_defaults=True)
        written = json.dumps([self.task, arguments], sort_keys=True, separators=(",", ":"), default=_normalised)
        return hashlib.sha256(written.encode()).digest()

    @property
    def subject(self) -> int | None:
        """The order the command is about, if it names one."""
        subject: int | None = getattr(self, "order_id", None)
        return subject


class ActorCommand(Command):
    """A command from somebody: exactly one of a party of the order or staff by name."""

    member_id: MemberId | None = None
    staff: StaffName | None = None
    occurred_at: TimestampText | None = None

    @model_validator(mode="after")
    def _exactly_one_actor(self) -> ActorCommand:
        if (self.member_id is None) == (self.staff is None):
            raise ValueError("exactly one of member_id and staff must be given")
        return self

    @property
    def actor(self) -> Actor:
        """Who asks."""
        return Actor(self.member_id, self.staff)


class OrderCommand(ActorCommand):
    """A command about one order."""

    order_id: OrderId


class OrderFact(Command):
    """What the marketplace says of one order: nobody acts, it simply is so."""

    order_id: OrderId
    member_id: ClassVar[None] = None
    actor: ClassVar[None] = None
    occurred_at: ClassVar[None] = None


CommandT = TypeVar("CommandT", bound=Command)


def parse_command(
    model: type[CommandT], arguments: Mapping[str, Any], message_id: str, *, positional: int = 0
) -> CommandT | Answer:
    """The command that these arguments say, or the `invalid` answer naming what is wrong with each."""
    given = dict(arguments)
    if given.get("request_id") is None:
        given["request_id"] = message_id
    named = given["request_id"] if _is_request_id(given["request_id"]) else message_id[:128]  # no value is echoed
    if positional:
        return invalid(named, [("args", "only keyword arguments are taken")])
    if deep := [name for name, value in given.items() if _is_deep(value)]:
        return invalid(named, [(_path((name,)), "is nested too deeply") for name in deep])
    try:
        return model.model_validate(given)
    except ValidationError as error:
        return invalid(named, sorted({_problem(e) for e in error.errors(include_url=False)})[:MAX_ERRORS])


def _is_deep(value: Any) -> bool:
    """Whether there are more levels than any argument has: looked at level by level, for recursion would end in an error."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _is_request_id(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(_REQUEST_ID, value) is not None and not value.endswith("\n")


TYPED_VALUE_KEYS = ("__type__", "__value__")
"""The keys of what kombu's serializer writes for a value that JSON has no type for."""


def _problem(error: Any) -> tuple[str, str]:
    """Path and sentence.  A typed value has one problem, whatever its argument takes."""
    place: tuple[int | str, ...] = error["loc"]
    if len(place) > 1 and place[-1] in TYPED_VALUE_KEYS:
        return _path(place[:-1]), NOT_PLAIN_JSON
    if isinstance(error["input"], dict) and TYPED_VALUE_KEYS[0] in error["input"]:
        inner = place[:-1] if error["type"] == "missing" else place
        if inner:
            return _path(inner), NOT_PLAIN_JSON
    return _path(place), _said(error)


NOT_PLAIN_JSON = "must be plain JSON: write ids, amounts and instants as text"


def _path(location: tuple[int | str, ...]) -> str:
    """`lines.0.quantity`; what concerns the two actor arguments together is said of `member_id`.

    The name of an argument that nobody knows is the caller's text: it is shown short and printable, or as `?`.
    """
    parts = ("".join(c if c.isprintable() else "?" for c in str(part)[:64]) or "?" for part in location)
    return ".".join(parts) or "member_id"


def _said(error: Any) -> str:
    """What is wrong with one argument, in a person's words where the library's own would be those of a program."""
    kind, message = error["type"], str(error["msg"])
    if kind in ("too_long", "string_too_long"):
        # Text that is checked after its validators is measured like a list, and called so.
        items = "items" if error["ctx"].get("field_type") == "List" else "characters"
        return f"must have at most {error['ctx']['max_length']} {items}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    return {"extra_forbidden": "there is no such argument", "missing": "is missing"}.get(
        kind, message.removeprefix("Value error, ")
    )
