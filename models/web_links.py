"""Used sign-in links of the Problem Order page, so that each works only once."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Index
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.schema import Base


class WebLinkRow(Base):
    __tablename__ = "web_links"
    __table_args__ = (Index("ix_web_links_used_at", "used_at"),)

    link_hash: Mapped[bytes] = mapped_column(primary_key=True)
    used_at: Mapped[datetime]


def use_link(conn: Connection, link_hash: bytes, now: datetime) -> bool:
    used = insert(WebLinkRow).values(link_hash=link_hash, used_at=now).on_conflict_do_nothing()
    return conn.execute(used.returning(WebLinkRow.used_at)).scalar() is not None
