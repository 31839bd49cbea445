"""The table of terms, in rows by the date from which they apply. Before the first row, BrickLink's own terms apply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Identity, select
from sqlalchemy import insert as sa_insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.locks import lock_named
from models.db.pipeline import Fetch, execute
from models.db.schema import Base
from policies.term_settings import read_terms
from policies.terms import DEFAULT_TERMS, Terms


class TermsRow(Base):
    __tablename__ = "terms"

    terms_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    valid_from: Mapped[datetime]
    settings: Mapped[dict[str, Any]]
    applied_by: Mapped[str]
    applied_at: Mapped[datetime]


BRICKLINK_TERMS_ID = 0


@dataclass(frozen=True, slots=True)
class DatedTerms:
    terms_id: int
    valid_from: datetime
    terms: Terms
    applied_by: str


class TermsHistory:
    def __init__(self, dated: Sequence[DatedTerms]) -> None:
        self._dated = sorted(dated, key=lambda d: (d.valid_from, d.terms_id))
        self._by_id = {d.terms_id: d.terms for d in dated} | {BRICKLINK_TERMS_ID: DEFAULT_TERMS}
        self._ids = {terms: terms_id for terms_id, terms in self._by_id.items()}

    def at(self, instant: datetime) -> Terms:
        current = DEFAULT_TERMS
        for dated in self._dated:
            if dated.valid_from <= instant:
                current = dated.terms
        return current

    def after(self, instant: datetime) -> tuple[tuple[datetime, Terms], ...]:
        return tuple({d.valid_from: d.terms for d in self._dated if d.valid_from > instant}.items())

    def by_id(self, terms_id: int) -> Terms:
        return self._by_id[terms_id]

    def id_of(self, terms: Terms) -> int:
        return self._ids[terms]

    def by_ids(self) -> dict[int, Terms]:
        return dict(self._by_id)

    def __iter__(self) -> Any:
        return iter(self._dated)


_TERMS = select(TermsRow).order_by(TermsRow.terms_id)


def load_terms(conn: Connection) -> TermsHistory:
    return send_terms_query(conn)()


def send_terms_query(conn: Connection) -> Fetch[TermsHistory]:
    rows = execute(conn, _TERMS, {})
    return lambda: TermsHistory(
        [
            DatedTerms(r.terms_id, r.valid_from, _terms_from_row(json.dumps(r.settings, sort_keys=True)), r.applied_by)
            for r in rows
        ]
    )


@lru_cache(maxsize=64)
def _terms_from_row(settings: str) -> Terms:
    return read_terms(json.loads(settings))


def lock_terms(conn: Connection) -> None:
    lock_named(conn, "terms")


def insert_terms(
    conn: Connection, settings: dict[str, Any], valid_from: datetime, applied_by: str, now: datetime
) -> int:
    row = sa_insert(TermsRow).values(settings=settings, valid_from=valid_from, applied_by=applied_by, applied_at=now)
    terms_id: int = conn.execute(row.returning(TermsRow.terms_id)).scalar_one()
    return terms_id
