"""How does a database get its tables?"""

from __future__ import annotations

from sqlalchemy import create_engine, text

from models.ledger import GUARDS
from models.tables import metadata


def upgrade(database_url: str) -> None:
    """Bring the database to the newest schema."""
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("CREATE SCHEMA IF NOT EXISTS unwind"))
        metadata.create_all(conn)
        for statement in GUARDS:
            conn.execute(text(statement))
    engine.dispose()
