"""Does work go on from a backup?  Everything in one file, into an empty database, beside an empty Redis."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from models import feed, invariants, session
from schedules.routes import queue_of
from tests.plugins.market import Market
from tests.plugins.servers import fresh_database, plain
from tests.plugins.upstream import Installation, installation, now, submit_orders, until
from workers.cli import group
from workers.programs import worker
from workers.servers import ServerUrls

pytestmark = pytest.mark.e2e


def typed(monkeypatch: pytest.MonkeyPatch, url: str, *words: str) -> Result:
    """Type a command of an operator whose database is `url`."""
    monkeypatch.setenv("DATABASE_URL", url)
    return CliRunner().invoke(group, words)


def past(market: Market) -> None:
    """Orders of three weeks ago that nobody paid."""
    submit_orders(market, range(2001, 2004), buyer_id="stranger")


def counts(url: str) -> dict[str, int]:
    """Rows of every table."""
    with psycopg.connect(plain(url)) as conn:
        names = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'unwind' ORDER BY 1").fetchall()
        return {
            name: (conn.execute(f"SELECT count(*) FROM unwind.{name}").fetchone() or (0,))[0]  # noqa: S608 - from the catalogue
            for (name,) in names
        }


@pytest.mark.long
def test_a_restored_installation_keeps_its_promises(
    servers: ServerUrls,
    admin: psycopg.Connection,
    template_database: str,
    empty_database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P1, P5: dumped between a cancellation and its consequences, restored elsewhere, Redis empty: the consequences still come."""
    file = tmp_path / "unwind.dump"
    with installation(servers, admin, template_database, tmp_path / "old", past) as old:
        before = _cancel_without_followers(old)
        assert typed(monkeypatch, old.database_url, "backup", str(file)).exit_code == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        kept = counts(old.database_url)
    said = typed(monkeypatch, empty_database_url, "restore", str(file))
    assert said.exit_code == 0, said.output
    assert "All that must hold does." in said.output
    assert counts(empty_database_url) == kept
    with installation(servers, admin, template_database, tmp_path / "new", lambda _market: None) as new:
        new.database_url = empty_database_url
        new.settings = new.settings.model_copy(update={"database_url": SecretStr(empty_database_url)})
        new.supervisor.start(worker(new.settings, new.supervisor, "sweeps"))
        new.start_worker()
        with new.client() as ask:
            ask.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True)  # as beat does
            until(lambda: new.value("SELECT state = 'done' FROM unwind.outbox WHERE key = 'fee:2001'"))
            again = ask.send_task(
                "orders.cancel",
                kwargs={"order_id": 2001, "member_id": "seller", "request_id": "before-the-backup"},
                queue="commands",
            ).get(timeout=30)
        assert again == before | {"replayed": True}
        database = session.connect(empty_database_url)
        with database.transaction() as conn:
            assert invariants.check(conn, database.clock.now(conn), in_time=False) == []
        database.dispose()


def _cancel_without_followers(old: Installation) -> dict[str, Any]:
    """Cancel an order through a task body, so that nothing that it promised is done yet."""
    from workers.stage import Stage

    with Stage(old.database_url, at=now(old.database_url)) as stage:
        filed = {"reason": "S_MUTUAL", "comment": "agreed by mail", "request_id": "asked-before"}
        stage.do("ocr.file", order_id=2001, member_id="seller", **filed)
        answer = stage.do("orders.cancel", order_id=2001, member_id="seller", request_id="before-the-backup")
    assert answer["outcome"] == "done", answer
    return answer


def test_a_restore_never_overwrites(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that holds anything of ours is refused, and a file that is there is not replaced unless one says so."""
    file = tmp_path / "unwind.dump"
    assert typed(monkeypatch, database_url, "backup", str(file)).exit_code == 0
    refused = typed(monkeypatch, database_url, "restore", str(file))
    assert refused.exit_code == 1
    assert "empty database" in refused.output
    refused = typed(monkeypatch, database_url, "backup", str(file))
    assert (refused.exit_code, "--replace" in refused.output) == (1, True)
    assert typed(monkeypatch, database_url, "backup", str(file), "--replace").exit_code == 0


def test_a_broken_file_leaves_nothing_behind(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or not at all: what pg_restore says is passed on, and the next try finds an empty database."""
    broken = tmp_path / "broken.dump"
    broken.write_bytes(b"PGDMP and then nothing of use")
    said = typed(monkeypatch, empty_database_url, "restore", str(broken))
    assert said.exit_code == 1
    assert "pg_restore did not succeed" in said.output
    engine = create_engine(empty_database_url)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT to_regclass('unwind.orders')")).scalar() is None
    engine.dispose()


def test_no_password_stands_on_a_command_line(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody on the host sees command lines: the address goes through the environment."""
    ran: list[list[str]] = []
    real = subprocess.run

    def watched(command: Any, **options: Any) -> Any:
        ran.append([str(word) for word in command])
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    assert typed(monkeypatch, database_url, "backup", str(tmp_path / "x.dump")).exit_code == 0
    password = database_url.split(":")[2].partition("@")[0]
    assert any("pg_dump" in command[0] for command in ran)
    assert password
    assert not any(password in word for command in ran for word in command)


def test_the_feed_goes_on_after_a_move_to_a_server_that_counts_from_lower(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, market: Market
) -> None:
    """A reader's cursor stays good: what happens after the move comes after what happened before it, without a gap."""
    market.order(1003)
    with fresh_database(servers, admin, template_database) as url:
        engine = create_engine(url)
        with engine.begin() as conn:  # as rows look that another server wrote, a million transactions further on
            conn.execute(
                text(
                    "INSERT INTO unwind.events (at, type, actor, role, note, changes, member_id, written_in) VALUES "
                    "('2026-03-01Z', 'members.terminated', 'pat', 'staff', '', '{}', 'm', "
                    "1000000 + (pg_current_xact_id()::text)::bigint)"
                )
            )
        with engine.begin() as conn:
            assert feed.after(conn, None, 10) == []  # hidden: it seems to be written by a transaction to come
            assert 0 < feed.ahead(conn) <= 1_000_000
            assert feed.go_on_counting(conn) > 0
        with engine.begin() as conn:
            assert feed.go_on_counting(conn) == 0
            ((cursor, first),) = feed.after(conn, None, 10)
            assert first["type"] == "members.terminated"
        with engine.begin() as conn:
            conn.execute(
                text(
                    "INSERT INTO unwind.events (at, type, actor, role, note, changes, member_id) VALUES "
                    "('2026-03-02Z', 'members.reinstated', 'pat', 'staff', '', '{}', 'm')"
                )
            )
        with engine.begin() as conn:
            ((_, second),) = feed.after(conn, cursor, 10)
            assert second["type"] == "members.reinstated"
        engine.dispose()
