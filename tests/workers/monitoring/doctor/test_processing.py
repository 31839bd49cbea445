"""Tests of the doctor's checks of the schema, late work, pauses, alerts and invariants."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from models import dead_jobs, dead_letters, outbox, pauses, sweeps, webhooks
from policies.verdicts import OutboxMessage
from schedules.routes import QUEUES
from schedules.timetable import TIMETABLE
from tasks.queue_heartbeat import heartbeat_run
from tests.plugins.market import FILED, Market
from tests.plugins.sql_interface import submit_command
from tests.workers.monitoring.doctor.findings import LONG_AGO, codes, real_now, severity
from workers.migrate import migrate
from workers.monitoring.doctor import run_checks
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import exit_status
from workers.simulation.engine import SimulatedClock
from workers.transport.dead_letters import pending_letter
from workers.transport.validation import Rejected


def test_schema_of_another_version_is_an_error(context: Context, owner: psycopg.Connection) -> None:
    owner.execute("DROP INDEX unwind.ix_outbox_due")
    assert codes(run_checks(context)) == ["SCHEMA_DIFFERS"]
    owner.execute("UPDATE unwind.alembic_version SET version_num = '0000'")
    owner.execute("DROP TABLE unwind.dead_jobs CASCADE")
    assert codes(run_checks(context)) == ["SCHEMA_NOT_AT_HEAD"]


def test_commands_that_the_sql_interface_refuses_are_an_error(context: Context, owner: psycopg.Connection) -> None:
    owner.execute("ALTER TABLE unwind.commands DISABLE TRIGGER USER")
    owner.execute("DELETE FROM unwind.commands WHERE name = 'npb.respond'")
    (finding,) = run_checks(context)
    assert (finding.code, str(finding.severity)) == ("COMMANDS_MISSING", "error")
    assert "npb.respond" in finding.message
    migrate(context.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    assert run_checks(context) == []


def test_failing_check_is_reported_and_stops_no_other(context: Context, owner: psycopg.Connection) -> None:
    owner.execute("REVOKE SELECT ON unwind.dead_jobs FROM unwind_app")
    insert_late_outbox_message(context)
    findings = run_checks(context)
    assert "CHECK_FAILED" in codes(findings)
    assert codes([finding for finding in findings if finding.code != "CHECK_FAILED"]) == ["OUTBOX_LATE"]
    (broken,) = {finding.fix for finding in findings if finding.code == "CHECK_FAILED"}
    assert "./run migrate" in broken
    assert "report it" not in broken


def insert_late_outbox_message(context: Context) -> None:
    """Insert an outbox message that was due ten minutes ago."""
    assert context.database is not None
    with context.database.transaction() as conn:
        outbox.enqueue_messages(conn, [OutboxMessage("notices.tell_seller", "a", 1)], real_now() - LONG_AGO)


def test_waiting_outbox_message_is_late_only_while_workers_run(context: Context) -> None:
    """P7: late after a minute."""
    insert_late_outbox_message(context)
    findings = run_checks(context)
    assert (codes(findings), severity(findings)) == (["OUTBOX_LATE"], "warning")
    assert "10 minutes" in findings[0].message
    assert run_checks(replace(context, supervised_since=None)) == []


def test_waiting_submission_is_late(context: Context, owner: psycopg.Connection) -> None:
    submit_command(owner, "orders.options", {"order_id": 1})
    assert run_checks(context) == []
    owner.execute("UPDATE unwind.submissions SET submitted_at = submitted_at - interval '10 minutes'")
    assert codes(run_checks(context)) == ["SUBMISSIONS_LATE"]


def test_sweep_that_has_not_completed_is_late(context: Context) -> None:
    """A beat that sends nothing still answers pings."""
    running_long = replace(context, supervised_since=real_now() - LONG_AGO)
    assert codes(run_checks(running_long)) == ["SWEEPS_LATE"]
    never = run_checks(replace(context, supervised_since=None, external_servers=True))
    assert codes(never) == ["MAIL_TO_FILES", "SWEEPS_NEVER_RAN"]
    assert exit_status(never) == 1
    assert context.database is not None
    with context.database.transaction() as conn:
        for entry in TIMETABLE:
            late = entry.name == "audit.check_invariants"
            sweeps.record_sweep_run(conn, entry.name, 0, real_now() - (LONG_AGO if late else timedelta(0)))
    findings = run_checks(running_long)
    assert codes(findings) == ["SWEEPS_LATE"]
    assert "audit.check_invariants (last 10 minutes ago)." in findings[0].message
    assert "workers for audits run" in findings[0].fix
    assert run_checks(context) == []
    assert run_checks(replace(context, supervised_since=None)) == []


def test_disabled_webhooks_are_reported(context: Context, owner: psycopg.Connection) -> None:
    assert context.database is not None
    with context.database.transaction() as conn:
        webhook = webhooks.add_webhook(conn, "https://shop.example/", "whsec_x", ["*"], real_now())
    assert run_checks(context) == []
    owner.execute("UPDATE unwind.webhooks SET disabled_at = clock_timestamp()")
    findings = run_checks(context)
    assert (codes(findings), severity(findings)) == (["WEBHOOKS_DISABLED"], "warning")
    assert f"{webhook} (https://shop.example/)" in findings[0].message


def test_pauses_are_reported_instead_of_what_they_delay(context: Context, owner: psycopg.Connection) -> None:
    assert context.database is not None
    insert_late_outbox_message(context)
    submit_command(owner, "orders.options", {"order_id": 1})
    owner.execute("UPDATE unwind.submissions SET submitted_at = submitted_at - interval '10 minutes'")
    running_long = replace(context, supervised_since=real_now() - LONG_AGO)
    assert codes(run_checks(running_long)) == ["OUTBOX_LATE", "SUBMISSIONS_LATE", "SWEEPS_LATE"]
    with context.database.transaction() as conn:
        for name in QUEUES:
            pauses.pause(conn, "queue", name, real_now() - timedelta(minutes=5), reason="the disk is being moved")
    findings = run_checks(running_long)
    assert (codes(findings), {finding.severity.value for finding in findings}) == (
        ["PAUSED"] * len(QUEUES),
        {"warning"},
    )
    assert findings[0].message == "The queue commands has been paused for 5 minutes: the disk is being moved"
    with context.database.transaction() as conn:
        assert pauses.resume(conn, "queue", "commands", real_now())
        pauses.pause(conn, "queue", "notices", real_now(), until=real_now() + timedelta(seconds=0.05))
        pauses.pause(conn, "task", "orders.options", real_now())
    owner.execute("SELECT pg_sleep(0.1)")
    findings = run_checks(running_long)
    assert codes(findings) == [*["PAUSED"] * (len(QUEUES) - 1), "SWEEPS_LATE"]
    assert (
        findings[-1].message
        == "These sweeps do not run when they should: notices.deliver (never), webhooks.deliver (never)."
    )


def test_queue_whose_heartbeat_is_not_taken_is_an_error(context: Context) -> None:
    running_long = replace(context, supervised_since=real_now() - LONG_AGO)
    assert context.database is not None
    with context.database.transaction() as conn:
        for run in (*(entry.name for entry in TIMETABLE), *map(heartbeat_run, QUEUES)):
            late = run == "heartbeat.notices"
            sweeps.record_sweep_run(conn, run, 0, real_now() - (LONG_AGO if late else timedelta(0)))
    findings = run_checks(running_long)
    assert (codes(findings), severity(findings)) == (["HEARTBEAT_LATE"], "error")
    assert "notices (for 10 minutes)." in findings[0].message
    assert run_checks(context) == []


def test_dead_jobs_parked_emails_and_dead_letters_are_reported(context: Context, owner: psycopg.Connection) -> None:
    assert context.database is not None
    with context.database.transaction() as conn:
        for task in ("orders.cancel", "notices.deliver"):
            dead_jobs.park_job(conn, task=task, arguments={}, error="KeyError", attempts=3, now=real_now())
    findings = run_checks(context)
    assert (codes(findings), severity(findings)) == (["DEAD_JOBS"], "warning")
    assert "One job is parked" in findings[0].message
    owner.execute("UPDATE unwind.dead_jobs SET replayed_at = clock_timestamp()")
    owner.execute(
        "INSERT INTO unwind.notices (key, event, recipient, role, state, email, message_id, created_at) "
        "VALUES ('a', 'ocr_filed', 'sam', 'seller', 'parked', '{}', 'a', clock_timestamp())"
    )
    assert codes(run_checks(context)) == ["NOTICES_PARKED"]
    owner.execute("UPDATE unwind.notices SET state = 'sent', sent_at = clock_timestamp()")
    with context.database.transaction() as conn:
        letter = pending_letter(Rejected("TASK_UNKNOWN", "", "x", "a"), "commands", b"private")
        dead_letters.insert_dead_letter(conn, letter, real_now())
    findings = run_checks(context)
    assert (codes(findings), severity(findings)) == (["DEAD_LETTERS"], "note")


# -- the marketplace ---------------------------------------------------------------------------------------------------


def test_three_open_alerts_against_one_member_are_a_warning(market: Market, context: Context) -> None:
    """R98, A20: before the first sweep the unlocks are late too."""
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2, 3):
        market.done("npb.file", order_id=order_id, member_id="seller")
    assert codes(run_checks(context)) == ["MANY_ALERTS", "UNLOCKS_LATE"]
    market.simulation.advance(FILED + timedelta(days=8))
    findings = [finding for finding in run_checks(context) if finding.code == "MANY_ALERTS"]
    assert severity(findings) == "warning"
    assert "buyer as buyer (3)" in findings[0].message
    assert codes(run_checks(context)) == ["BILLS_PAST_DUE", "MANY_ALERTS"]


def test_unissued_bill_is_a_warning(market: Market, context: Context, owner: psycopg.Connection) -> None:
    """P8: the other sellers have theirs."""
    market.order(1)
    owner.execute("INSERT INTO unwind.held_bills VALUES ('seller', '2026-03-01', now())")
    findings = run_checks(context)
    assert (codes(findings), severity(findings)) == (["BILLS_HELD"], "warning")
    assert "seller 2026-03" in findings[0].message


def test_a_late_payment_that_nobody_settles_is_a_warning(market: Market, context: Context) -> None:
    """R107: until the seller or staff says that the money was sent back."""
    market.order(1)
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="agreed")
    market.done("orders.cancel", order_id=1, member_id="seller")
    market.done("orders.record_payment", order_id=1, payment_status="Received")
    findings = run_checks(context)
    assert (codes(findings), severity(findings)) == (["LATE_PAYMENTS"], "warning")
    assert "days or longer: 1." in findings[0].message
    market.done("orders.settle_late_payment", order_id=1, member_id="seller", comment="sent back")
    assert run_checks(context) == []


def test_unanswered_request_is_a_note(market: Market, context: Context) -> None:
    """R16, A13: after the last reminder; an unpaid bill is a note too."""
    market.order(1)
    market.done(
        "ocr.file", order_id=1, member_id="buyer", reason="B_OTHER", comment="I ordered the wrong colour, sorry."
    )
    market.simulation.advance(FILED + timedelta(days=90))
    findings = run_checks(context)
    assert codes(findings) == ["BILLS_PAST_DUE", "REQUESTS_UNANSWERED"]
    assert exit_status(findings) == 0


@pytest.mark.breaks_invariants("an amount is falsified on purpose")
def test_broken_invariant_is_an_error_with_its_ids(market: Market, context: Context, owner: psycopg.Connection) -> None:
    market.order(1003)
    owner.execute("SET session_replication_role = replica")
    owner.execute("UPDATE unwind.orders SET version = version + 1")
    findings = run_checks(context)
    assert set(codes(findings)) == {"INVARIANT_BROKEN"}
    assert exit_status(findings) == 2
    assert "1003" in findings[0].message


def test_database_clock_that_was_set_back_is_reported(context: Context) -> None:
    """Machines that agree with each other may all be set back."""
    assert context.database is not None
    ahead = real_now() + timedelta(hours=1)
    with context.database.transaction() as conn:
        for entry in TIMETABLE:
            sweeps.record_sweep_run(conn, entry.name, 0, ahead)
    findings = run_checks(context)
    assert codes(findings) == ["CLOCK_SET_BACK", "SWEEPS_LATE"]
    assert "60 minutes in its future" in findings[0].message
    assert "not since the clock was set back" in findings[1].message
    with context.database.transaction() as conn:
        for entry in TIMETABLE:
            sweeps.record_sweep_run(conn, entry.name, 0, real_now())
    assert run_checks(context) == []


@pytest.mark.parametrize("supervised", [True, False])
def test_fresh_installation_has_no_findings_for_ten_minutes(
    context: Context, owner: psycopg.Connection, supervised: bool
) -> None:
    assert context.database is not None
    began = real_now()
    owner.execute("INSERT INTO unwind.broker_epochs VALUES ('the first broker', %s)", [began])
    clock = SimulatedClock(began)
    fresh_context = replace(
        context,
        database=replace(context.database, clock=clock),
        supervised_since=began if supervised else None,
        consumers={"worker@here": ["commands", "consequences", "notices", "sweeps"]},
    )
    for minute in range(11):
        clock.instant = began + timedelta(minutes=minute)
        with context.database.transaction() as conn:
            for entry in TIMETABLE:
                if entry.full_pass_interval is None:
                    sweeps.record_sweep_run(conn, entry.name, 0, clock.instant)
        assert run_checks(fresh_context) == []
    clock.instant = began + timedelta(days=3)
    with context.database.transaction() as conn:
        for entry in TIMETABLE:
            if entry.full_pass_interval is None:
                sweeps.record_sweep_run(conn, entry.name, 0, clock.instant)
    [findings] = run_checks(fresh_context)
    assert "audit.check_everything" in findings.message
