"""Which messages came that no task of ours could take?  Kept here so that a producer's mistake is seen and not lost.

Whatever a stranger wrote is only ever shown as ids and lengths; the body is kept as base64 for whoever has to look closer.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Identity, Integer, Row, Table, Text, select

from models.schema import Instant, metadata, one_of

BODY_BYTES = 4096
"""Of the body this much is kept: enough to recognise it, too little to fill a disk."""
NAME_LENGTH = 200

odd_messages = Table(
    "odd_messages",
    metadata,
    Column("odd_message_id", BigInteger, Identity(), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("named", Text),
    Column("message_id", Text),
    Column("queue", Text),
    Column("body_bytes", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("came_at", Instant, nullable=False),
    one_of("reason", ("TASK_UNKNOWN", "NOT_A_COMMAND")),
)


def keep(
    conn: Connection,
    *,
    reason: str,
    named: str | None,
    message_id: str | None,
    queue: str | None,
    body: bytes,
    now: datetime,
) -> None:
    """Remember one message.  `reason`: TASK_UNKNOWN (a name of no task) or NOT_A_COMMAND (of another shape)."""
    conn.execute(
        odd_messages.insert().values(
            reason=reason,
            named=_plain(named),
            message_id=_plain(message_id),
            queue=_plain(queue),
            body_bytes=len(body),
            body=base64.b64encode(body[:BODY_BYTES]).decode(),
            came_at=now,
        )
    )


def latest(conn: Connection, *, limit: int) -> list[Row[Any]]:
    """The last ones that came, newest first, without their bodies."""
    shown = [column for column in odd_messages.c if column.name != "body"]
    return list(conn.execute(select(*shown).order_by(odd_messages.c.odd_message_id.desc()).limit(limit)))


def _plain(text: str | None) -> str | None:
    """What PostgreSQL can keep and a terminal can show."""
    if text is None:
        return None
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "?" for c in text[:NAME_LENGTH])
