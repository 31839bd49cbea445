"""Dead jobs: commands and follow-ups parked after failing, until staff replays or discards them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, Row, insert, select, update
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, BigInt, BigIntKey, check_in, partial_index
from policies.texts import escape_to_ascii

DEAD_JOB_REASONS = {
    "FAILED": "failed at every attempt",
    "WORKER_DIED": "its worker died at every attempt",
    "TOO_LONG": "ran longer than allowed",
    "UNDELIVERABLE": "an email that no server accepts",
    "IMPOSSIBLE": "cannot be done as it is",
}
"""Why a job was parked, with the words for it."""
MAX_ERROR_LENGTH = 4000
MAX_DEAD_JOB_DEPTH = 50
"""Levels of arguments that a dead job stores; those of messages are limited to less than half of that."""
MAX_DEAD_JOB_INTEGER_BITS = 10_000
"""Python neither writes nor reads an integer of more than 4,300 decimal digits."""
_DEAD_JOB_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class DeadJobRow(Base):
    __tablename__ = "dead_jobs"
    __table_args__ = (
        check_in("reason", DEAD_JOB_REASONS),
        CheckConstraint("first_error <> '' AND error <> '' AND length(payload_hash) = 32", name="says_why"),
        CheckConstraint(
            "(discarded_at IS NULL) = (discard_reason IS NULL) AND (discarded_at IS NULL OR replayed_at IS NULL)",
            name="discarded_for_a_reason",
        ),
        partial_index("ix_dead_jobs_waiting", "dead_job_id", where="replayed_at IS NULL AND discarded_at IS NULL"),
    )

    dead_job_id: Mapped[BigIntKey]
    task: Mapped[str]
    message_id: Mapped[str | None]
    outbox_id: Mapped[BigInt | None]
    request_id: Mapped[str | None]
    order_id: Mapped[BigInt | None]
    # Not jsonb: that refuses NUL, unpaired surrogates and whatever the encoding of the database lacks.
    arguments: Mapped[dict[str, Any]] = mapped_column(JSON(none_as_null=True))
    payload_hash: Mapped[bytes]
    reason: Mapped[str]
    first_error: Mapped[str]
    error: Mapped[str]
    attempts: Mapped[int]
    parked_at: Mapped[datetime]
    replayed_at: Mapped[datetime | None]
    discarded_at: Mapped[datetime | None]
    discard_reason: Mapped[str | None]


_IS_WAITING_JOB = (DeadJobRow.replayed_at.is_(None), DeadJobRow.discarded_at.is_(None))
MAX_REASON_LENGTH = 500


def park_job(
    conn: Connection,
    *,
    task: str,
    arguments: Mapping[str, Any],
    error: str,
    attempts: int,
    now: datetime,
    first_error: str | None = None,
    reason: str = "FAILED",
    message_id: str | None = None,
    outbox_id: int | None = None,
) -> int:
    """Insert a dead job and return its id.  `first_error` is needed only if it differs from the last one, `error`.

    Any arguments can be stored (`dead_job_arguments`).  A message that is a waiting dead job is not inserted again.
    """
    storable_arguments = dead_job_arguments(dict(arguments))
    payload_hash = dead_job_payload_hash(storable_arguments)
    task, message_id = escape_to_ascii(task), message_id and escape_to_ascii(message_id)
    if message_id is not None:
        same = (DeadJobRow.task == task, DeadJobRow.message_id == message_id, DeadJobRow.payload_hash == payload_hash)
        dead_job_id = conn.execute(select(DeadJobRow.dead_job_id).where(*same, *_IS_WAITING_JOB).limit(1)).scalar()
        if dead_job_id is not None:
            return dead_job_id
    error = escape_to_ascii(error)[:MAX_ERROR_LENGTH] or "no message"
    order_id = storable_arguments.get("order_id")
    row = insert(DeadJobRow).values(
        task=task,
        message_id=message_id,
        outbox_id=outbox_id,
        request_id=dead_job_request_id(storable_arguments),
        order_id=order_id if type(order_id) is int and 0 < order_id < 2**63 else None,
        arguments=storable_arguments,
        payload_hash=payload_hash,
        reason=reason,
        first_error=escape_to_ascii(first_error or "")[:MAX_ERROR_LENGTH] or error,
        error=error,
        attempts=max(1, min(attempts, 2**31 - 1)),
        parked_at=now,
    )
    return conn.execute(row.returning(DeadJobRow.dead_job_id)).scalar_one()


def dead_job_request_id(arguments: Mapping[str, Any]) -> str | None:
    request_id = arguments.get("request_id")
    return request_id if isinstance(request_id, str) and _DEAD_JOB_REQUEST_ID.fullmatch(request_id) else None


def dead_job_payload_hash(arguments: Mapping[str, Any]) -> bytes:
    written = json.dumps(dead_job_arguments(dict(arguments)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).digest()


def dead_job_arguments(value: Any, levels: int = MAX_DEAD_JOB_DEPTH) -> Any:
    """Return a value as plain JSON.  Never raises: what JSON cannot represent becomes text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= MAX_DEAD_JOB_INTEGER_BITS else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if levels == 0:
        return "nested too deeply to be stored"
    if isinstance(value, Mapping):
        return {_as_dead_job_text(name): dead_job_arguments(inner, levels - 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | AbstractSet):
        return [dead_job_arguments(inner, levels - 1) for inner in value]
    return _as_dead_job_text(value)


def _as_dead_job_text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - its `__str__` may raise anything
        return type(value).__name__


def list_waiting_jobs(conn: Connection) -> list[Row[Any]]:
    return list(conn.execute(select(DeadJobRow).where(*_IS_WAITING_JOB).order_by(DeadJobRow.dead_job_id)))


def list_discarded_jobs(conn: Connection) -> list[Row[Any]]:
    query = select(DeadJobRow).where(DeadJobRow.discarded_at.is_not(None))
    return list(conn.execute(query.order_by(DeadJobRow.dead_job_id)))


def get_dead_job(conn: Connection, dead_job_id: int) -> Row[Any] | None:
    return conn.execute(select(DeadJobRow).where(DeadJobRow.dead_job_id == dead_job_id)).one_or_none()


def mark_job_replayed(conn: Connection, dead_job_id: int, now: datetime) -> bool:
    waits = (DeadJobRow.dead_job_id == dead_job_id, *_IS_WAITING_JOB)
    return conn.execute(update(DeadJobRow).where(*waits).values(replayed_at=now)).rowcount > 0


def discard_job(conn: Connection, dead_job_id: int, reason: str, now: datetime) -> bool:
    waits = (DeadJobRow.dead_job_id == dead_job_id, *_IS_WAITING_JOB)
    values = {"discarded_at": now, "discard_reason": reason[:MAX_REASON_LENGTH]}
    return conn.execute(update(DeadJobRow).where(*waits).values(**values)).rowcount > 0
