"""Do the embedded servers start, share, survive and end as promised?"""

from __future__ import annotations

import psycopg

from tests.plugins.servers import plain


def test_every_test_starts_with_a_migrated_empty_database(database_url: str) -> None:
    """House, the fence: real servers, one database per test."""
    with psycopg.connect(plain(database_url)) as connection:
        row = connection.execute("SELECT current_setting('TimeZone'), current_user").fetchone()
    assert row == ("UTC", "unwind_owner")
