"""The table of terms, in rows by the date from which they apply. Before the first row, BrickLink's own terms apply."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Identity, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from models.db.pipeline import Fetch, execute
from models.db.schema import Base
from policies.term_parsing import read_terms
from policies.terms import DatedTerms, Terms, TermsHistory


class TermsRow(Base):
    __tablename__ = "terms"

    terms_id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    valid_from: Mapped[datetime]
    settings: Mapped[dict[str, Any]]
    applied_by: Mapped[str]
    applied_at: Mapped[datetime]


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


def insert_terms(
    conn: Connection, settings: dict[str, Any], valid_from: datetime, applied_by: str, now: datetime
) -> int:
    row = insert(TermsRow).values(settings=settings, valid_from=valid_from, applied_by=applied_by, applied_at=now)
    return conn.execute(row.returning(TermsRow.terms_id)).scalar_one()
