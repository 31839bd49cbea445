"""Checks for late work: sweeps, outbox, submissions, emails, dead jobs, dead letters and invariants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from models import alerts, clock_steps, dead_jobs, dead_letters, notices, outbox, pauses, submissions
from models.integrity import invariants, month_audit, violation_log
from models.sweeps import last_sweep_runs
from policies.texts import pluralize
from policies.timestamps import format_timestamp
from schedules.routes import HEARTBEAT, QUEUES, is_internal_task, queue_of
from schedules.timetable import TIMETABLE, Entry
from tasks.queue_heartbeat import heartbeat_run
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, error, finding_age, finding_names, note, warning

WORK_LATE_AFTER = timedelta(minutes=1)
"""Work that waits longer than this while workers run is late."""
_HEARTBEAT_RUNS = {heartbeat_run(queue): queue for queue in QUEUES}


def check_pauses(context: Context) -> Iterator[Finding]:
    now = context.now()
    for row in pauses.list_pauses_in_effect(context.conn, now):
        message = f"The {row.kind} {row.name} has been paused for {finding_age(now, row.paused_at)}"
        message += f", until {format_timestamp(row.until)}" if row.until else ""
        message += f": {row.reason}" if row.reason else "."
        yield warning("PAUSED", message, f"run ./run resume {row.name} once the reason is gone.")


def check_clock_set_back(context: Context) -> Iterator[Finding]:
    """Compare the database's clock with its own newest records: all machines may have been set back together."""
    now = context.now()
    ahead = clock_steps.lead_over_clock(context.conn, now)
    if ahead > timedelta(seconds=2):  # NTP may set a clock back by as much at once
        message = (
            f"The database's clock was set back: its newest record is {finding_age(now + ahead, now)} in its future. "
            "Nothing is lost; alerts whose orders have such events unlock when the clock reaches them."
        )
        fix = "correct the clock of the database's machine and synchronise it by NTP (chrony or systemd-timesyncd)."
        yield warning("CLOCK_SET_BACK", message, fix)


def _tasks_exempt_from_checks(context: Context) -> set[str]:
    paused = pauses.load_pauses(context.conn, context.now())
    internal_tasks = {entry.name for entry in TIMETABLE} | {*outbox.OUTBOX_CONSUMERS, "submissions.drain"}
    tasks = {task for task in internal_tasks if queue_of(task) in paused.queues}
    return set(paused.tasks) | tasks | {run for run, queue in _HEARTBEAT_RUNS.items() if queue in paused.queues}


def check_sweeps(context: Context) -> Iterator[Finding]:
    """Compare when each sweep last ran with its interval; a hung beat would still answer pings."""
    if not context.workers_expected:
        return
    now, runs, paused = context.now(), last_sweep_runs(context.conn), _tasks_exempt_from_checks(context)
    started_at = outbox.first_relay_at(context.conn)
    late: dict[str, str] = {}
    never: dict[str, str] = {}
    for entry in TIMETABLE:
        if entry.name == HEARTBEAT or entry.name in paused:
            continue
        last_run = runs.get(entry.name)
        known = [at for at in (last_run, context.supervised_since) if at is not None]
        if last_run is not None and last_run > now + WORK_LATE_AFTER:
            late[f"{entry.name} (not since the clock was set back)"] = entry.queue
        elif not known:
            if started_at is None or now - started_at > _sweep_late_after(entry):
                never[entry.name] = entry.queue
        elif now - max(known) > _sweep_late_after(entry):
            age = f"last {finding_age(now, last_run)} ago" if last_run else "never"
            late[f"{entry.name} ({age})"] = entry.queue
    if late:
        message = f"These sweeps do not run when they should: {finding_names(late)}."
        yield warning("SWEEPS_LATE", message, _restart_fix(late))
    if never:
        kind = note if runs else warning  # in a new installation some sweeps run before others
        yield kind("SWEEPS_NEVER_RAN", f"These sweeps have never run: {finding_names(never)}.", _restart_fix(never))


def _restart_fix(queues_by_sweep: dict[str, str]) -> str:
    queues = ", ".join(sorted(set(queues_by_sweep.values())))
    return f"check that beat and workers for {queues} run, or restart them: ./run down, then ./run up."


def _sweep_late_after(entry: Entry) -> timedelta:
    if entry.full_pass_interval is not None:
        return 2 * entry.full_pass_interval
    return max(3 * entry.every, WORK_LATE_AFTER)  # one run is lost when a worker is replaced


def check_queue_heartbeats(context: Context) -> Iterator[Finding]:
    if not context.workers_expected:
        return
    now, runs, paused = context.now(), last_sweep_runs(context.conn), _tasks_exempt_from_checks(context)
    examined = {task: queue for task, queue in _HEARTBEAT_RUNS.items() if task not in paused}
    late = []
    for task, queue in examined.items():
        known = [at for at in (runs.get(task), context.supervised_since) if at is not None]
        if known and now - max(known) > WORK_LATE_AFTER:
            late.append(f"{queue} (for {finding_age(now, max(known))})")
    if late and len(late) < len(examined):
        message = f"No worker takes messages from these queues: {finding_names(late)}."
        fix = "check that a worker for them runs; one that takes nothing logs worker_stalled, ends and is restarted."
        yield error("HEARTBEAT_LATE", message, fix)


def check_late_unlocks(context: Context) -> Iterator[Finding]:
    if not _tasks_exempt_from_checks(context) & {"npb.scan_open_alerts", "alerts.scan_seller_alerts"}:
        message = "An alert was due {ago} ago and is not unlocked yet; its filer has not been notified."
        fix = "check that beat and a worker for the queue sweeps run."
        yield from _late_work(context, alerts.next_unlock_at(context.conn), "UNLOCKS_LATE", message, fix)


def check_late_outbox(context: Context) -> Iterator[Finding]:
    if not _tasks_exempt_from_checks(context) & {*outbox.OUTBOX_CONSUMERS, "outbox.relay"}:
        message = "An outbox message has waited for {ago}."
        fix = "check that workers run for the queues consequences, notices and outbox; ./run jobs dead lists failures."
        yield from _late_work(context, outbox.oldest_due_message(context.conn), "OUTBOX_LATE", message, fix)


def check_late_submissions(context: Context) -> Iterator[Finding]:
    paused = pauses.load_pauses(context.conn, context.now())
    accepts_commands = "commands" not in paused.queues and all(map(is_internal_task, paused.tasks))
    if accepts_commands and "submissions.drain" not in _tasks_exempt_from_checks(context):
        message = "A command submitted by SQL has waited for {ago}."
        fix = "check that a worker runs for the queues commands and submissions."
        since = submissions.oldest_waiting_submission(context.conn)
        yield from _late_work(context, since, "SUBMISSIONS_LATE", message, fix)


def _late_work(context: Context, since: datetime | None, code: str, message: str, fix: str) -> Iterator[Finding]:
    now = context.now()
    if context.workers_expected and since is not None and now - since > WORK_LATE_AFTER:
        yield warning(code, message.format(ago=finding_age(now, since)), fix)


def check_dead_jobs(context: Context) -> Iterator[Finding]:
    waiting = [job for job in dead_jobs.list_waiting_jobs(context.conn) if job.task != "notices.deliver"]
    if waiting:
        count = "One job is" if len(waiting) == 1 else f"{len(waiting)} jobs are"
        names = finding_names(f"{job.dead_job_id} {job.task}" for job in waiting)
        fix = "./run jobs dead shows why; ./run jobs replay ID runs one again."
        yield warning("DEAD_JOBS", f"{count} parked and waiting for an operator: {names}.", fix)


def check_parked_emails(context: Context) -> Iterator[Finding]:
    if parked := notices.count_parked_notices(context.conn):
        message = f"{pluralize(parked, 'email', 'emails')} could not be delivered and will not be retried."
        fix = "correct the addresses (members.record), then run the jobs of ./run jobs dead with ./run jobs replay ID."
        yield warning("NOTICES_PARKED", message, fix)


def check_dead_letters(context: Context) -> Iterator[Finding]:
    for latest in dead_letters.list_newest_dead_letters(context.conn, limit=1):
        if context.now() - latest.received_at <= timedelta(days=1):
            ago = finding_age(context.now(), latest.received_at)
            message = f"Workers received messages that are not commands of Unwind, the last one {ago} ago."
            yield note("DEAD_LETTERS", message, "./run jobs dead-letters shows them; correct their sender.")


def check_invariants(context: Context) -> Iterator[Finding]:
    newest = month_audit.months_to_audit(context.conn)[-1:]
    scope, _ = violation_log.recent_violation_scope(context.conn, context.now())
    known = violation_log.open_violations(context.conn)
    new = invariants.query_invariants(context.conn, context.now(), in_time=False, months=newest, scope=scope)
    for sentence, ids in (known | {found: ids for found, ids in new.items() if found not in known}).items():
        message = f"This invariant does not hold: {sentence}: {finding_names(ids)}."
        yield error("INVARIANT_BROKEN", message, "./run audit lists all of them; report it as a bug.")
