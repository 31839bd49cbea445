"""API keys of the HTTP interface, each with its permissions.

A key is `ID.SECRET`. Only the SHA-256 of the secret is stored: 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base, check_in

SCOPES = ("submit", "read", "staff")
MAX_NAME_LENGTH = 64
USE_INTERVAL = timedelta(minutes=1)
"""How exact the last use of a key is: a busy key is not written at every request."""


class ApiKeyRow(Base):
    __tablename__ = "api_keys"
    __table_args__ = (check_in("scope", SCOPES),)

    name: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(unique=True)
    secret_hash: Mapped[bytes]
    scope: Mapped[str]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


ApiKey = Row[str, str, bytes]
"""The `name`, `scope` and `secret_hash` of a valid key."""


def hash_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def insert_key(conn: Connection, name: str, scope: str, key_id: str, secret: str, now: datetime) -> bool:
    values = {"name": name, "scope": scope, "key_id": key_id, "secret_hash": hash_secret(secret), "created_at": now}
    inserted = insert(ApiKeyRow).values(**values).on_conflict_do_nothing().returning(ApiKeyRow.name)
    return conn.execute(inserted).scalar() is not None


def revoke_key(conn: Connection, name: str, now: datetime) -> bool:
    valid = (ApiKeyRow.name == name, ApiKeyRow.revoked_at.is_(None))
    return conn.execute(update(ApiKeyRow).where(*valid).values(revoked_at=now)).rowcount == 1


def list_keys(conn: Connection) -> list[Row[Any]]:
    columns = (ApiKeyRow.name, ApiKeyRow.scope, ApiKeyRow.created_at, ApiKeyRow.last_used_at, ApiKeyRow.revoked_at)
    return list(conn.execute(select(*columns).order_by(ApiKeyRow.name)))


def load_key(conn: Connection, key_id: str) -> ApiKey | None:
    valid = (ApiKeyRow.key_id == key_id, ApiKeyRow.revoked_at.is_(None))
    return conn.execute(select(ApiKeyRow.name, ApiKeyRow.scope, ApiKeyRow.secret_hash).where(*valid)).one_or_none()


def record_use(conn: Connection, name: str, now: datetime) -> None:
    unrecorded = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < now - USE_INTERVAL)
    conn.execute(update(ApiKeyRow).where(ApiKeyRow.name == name, unrecorded).values(last_used_at=now))
