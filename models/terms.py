"""Under which terms was what decided?  Dated rows; the first, BrickLink's own, is there from the beginning of time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Identity
from sqlalchemy import insert as sa_insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.locks import lock_named
from models.db.pipeline import Cursor, execute
from models.db.schema import Base
from policies.terms import DEFAULT_TERMS, Terms, read_terms


class TermsRow(Base):
    """Terms and the instant from which they apply."""

    __tablename__ = "terms"

    terms_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    valid_from: Mapped[datetime]
    settings: Mapped[dict[str, Any]]
    applied_by: Mapped[str]
    applied_at: Mapped[datetime]


BRICKLINK_TERMS_ID = 0


@dataclass(frozen=True, slots=True)
class DatedTerms:
    """One row of terms."""

    terms_id: int
    valid_from: datetime
    terms: Terms
    applied_by: str


class TermsHistory:
    """All terms there ever were, for asking which were in force when, and which a case was filed under."""

    def __init__(self, dated: Sequence[DatedTerms]) -> None:
        self._dated = sorted(dated, key=lambda d: (d.valid_from, d.terms_id))
        self._by_id = {d.terms_id: d.terms for d in dated} | {BRICKLINK_TERMS_ID: DEFAULT_TERMS}
        self._ids = {terms: terms_id for terms_id, terms in self._by_id.items()}

    def at(self, instant: datetime) -> Terms:
        """The terms in force at that instant."""
        held = DEFAULT_TERMS
        for dated in self._dated:
            if dated.valid_from <= instant:
                held = dated.terms
        return held

    def by_id(self, terms_id: int) -> Terms:
        """The terms a case was filed under."""
        return self._by_id[terms_id]

    def id_of(self, held: Terms) -> int:
        """The row of these terms; 0 is BrickLink's own, which need no row."""
        return self._ids[held]

    def by_ids(self) -> dict[int, Terms]:
        """All terms there are, by the id that a case keeps."""
        return dict(self._by_id)

    def __iter__(self) -> Any:
        return iter(self._dated)


def load_terms(conn: Connection) -> TermsHistory:
    """Read the terms."""
    return fetch_terms(send_terms(conn))


def send_terms(conn: Connection) -> Cursor:
    """The same, to be `read` when the statements that go with it were sent."""
    return execute(conn, "SELECT * FROM unwind.terms ORDER BY terms_id", {})


def fetch_terms(rows: Cursor) -> TermsHistory:
    """What was asked."""
    return TermsHistory(
        [
            DatedTerms(r.terms_id, r.valid_from, _read(json.dumps(r.settings, sort_keys=True)), r.applied_by)
            for r in rows
        ]
    )


@lru_cache(maxsize=64)
def _read(settings: str) -> Terms:
    return read_terms(json.loads(settings))


def lock(conn: Connection) -> None:
    """Keep others from applying terms until this transaction ends: each builds on what it found."""
    lock_named(conn, "terms")


def insert(conn: Connection, settings: dict[str, Any], valid_from: datetime, applied_by: str, now: datetime) -> int:
    """Write dated terms; gives their id."""
    row = sa_insert(TermsRow).values(settings=settings, valid_from=valid_from, applied_by=applied_by, applied_at=now)
    terms_id: int = conn.execute(row.returning(TermsRow.terms_id)).scalar_one()
    return terms_id
