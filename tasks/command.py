"""Base classes and field types of the commands' argument models.

Each public task has one strict model. `tasks.command_parsing` makes a command of a message or answers `invalid`, so
the task itself only sees valid commands.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from policies.cases import Actor
from policies.reasons import REASONS
from policies.texts import is_identifier, is_one_line, is_storable
from policies.timestamps import format_timestamp, parse_timestamp

MAX_COMMENT_LENGTH = 2000
MAX_REQUEST_ID_LENGTH = 128
MAX_INT32 = 2**31 - 1
MAX_INT64 = 2**63 - 1
ID_PATTERN = r"^(0|[1-9][0-9]{0,18})$"
"""An id as the text of an argument. `"01003"` and `"1e3"` do not match, so that each id has one form."""


def _validate_storable_text(value: str) -> str:
    if not is_storable(value):
        raise ValueError("must not contain NUL" if "\x00" in value else "must not contain unpaired surrogates")
    return value


def must(be: str, check: Callable[[Any], bool]) -> AfterValidator:
    """Refuse the values of an argument that fail the check, with a sentence which begins with "must"."""

    def validate(value: Any) -> Any:
        if not check(value):
            raise ValueError(f"must {be}")
        return value

    return AfterValidator(validate)


MUST_BE_POSITIVE = must("be above zero", lambda value: value > 0)
MUST_NOT_BE_NEGATIVE = must("not be negative", lambda value: value >= 0)
_MUST_BE_ONE_LINE = must("be one line of visible text", is_one_line)
_MUST_BE_IDENTIFIER = must("be one line of visible text without invisible characters", is_identifier)


def _parse_timestamp_argument(value: Any) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be an instant written as text, such as 2026-03-28T10:00:00Z")
    return parse_timestamp(value)


def _decimal_pattern(places: int) -> str:
    return rf"-?[0-9]{{1,10}}(\.[0-9]{{1,{places}}})?"


def _decimal_argument(places: int) -> BeforeValidator:
    def parse(value: Any) -> Decimal:
        if not isinstance(value, str) or not re.fullmatch(_decimal_pattern(places), value):
            raise ValueError(f'must be an amount written as text with at most {places} decimals, such as "20.00"')
        amount = Decimal(value)
        if amount.is_zero() and amount.is_signed():
            raise ValueError("must not be minus zero")
        return amount

    return BeforeValidator(parse)


def _decimal_schema(places: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{_decimal_pattern(places)}$"})


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
LotId = OrderId
RemovalId = OrderId
BindId = Annotated[int, Field(strict=True, ge=0, le=MAX_INT64), _FROM_TEXT, _id_schema(0)]
StrictInt = Annotated[int, Field(strict=True)]
Quantity = Annotated[int, Field(strict=True, ge=1, le=MAX_INT32)]
LineNo = Annotated[int, Field(strict=True, ge=1, le=MAX_INT32)]
StrictBool = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True), AfterValidator(_validate_storable_text)]
MemberId = Annotated[Text, StringConstraints(min_length=1, max_length=64), _MUST_BE_IDENTIFIER]
Handle = Annotated[Text, StringConstraints(min_length=1, max_length=64), _MUST_BE_ONE_LINE]
StaffName = MemberId
Comment = Annotated[Text, StringConstraints(max_length=MAX_COMMENT_LENGTH)]
CodeText = Annotated[Text, StringConstraints(min_length=1, max_length=64)]
_REASON_ARGUMENTS = {code: words for reasons in REASONS.values() for code, words in reasons.items()}
Reason = Annotated[
    CodeText,
    WithJsonSchema(
        {"type": "string", "enum": list(_REASON_ARGUMENTS), "enumDescriptions": list(_REASON_ARGUMENTS.values())}
    ),
]
"""Any other text is a reason that does not exist: refused, not invalid."""
REQUEST_ID_PATTERN = r"^[A-Za-z0-9._:\-]{1,128}$"
RequestId = Annotated[
    Text,
    StringConstraints(pattern=REQUEST_ID_PATTERN),
    WithJsonSchema({"type": "string", "pattern": REQUEST_ID_PATTERN}),
]
DraftId = MemberId
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
        normalize = self._normalize_for_fingerprint
        try:
            options = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
            text = orjson.dumps([self.task, arguments], default=normalize, option=options)
        except orjson.JSONEncodeError:  # such as an integer of more than 64 bits
            text = json.dumps([self.task, arguments], sort_keys=True, default=normalize).encode()
        return hashlib.sha256(text).digest()

    @staticmethod
    def _normalize_for_fingerprint(value: Any) -> str:
        # Equal values get one text: `"20.0"` and `"20.00"`, `10:00Z` and `11:00+01:00`.
        if isinstance(value, Decimal):
            return format(value.normalize(), "f")
        if isinstance(value, datetime):
            return format_timestamp(value)
        raise TypeError(f"no normal form for {type(value).__name__}")

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

    @cached_property
    def actor(self) -> Actor:
        return Actor(self.member_id, self.staff)


class OrderCommand(ActorCommand):
    order_id: OrderId


class OrderFactCommand(Command):
    order_id: OrderId
    member_id: ClassVar[None] = None
    actor: ClassVar[None] = None
    occurred_at: ClassVar[None] = None
