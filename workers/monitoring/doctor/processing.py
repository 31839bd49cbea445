"""Is the work being done?  Sweeps, promises, submissions, letters, given-up jobs, and what must always hold."""

from __future__ import annotations

from datetime import datetime, timedelta

from policies.timestamps import format_timestamp
from schedules.routes import HEARTBEAT_QUEUES, outbox_consumers, queue_of
from schedules.timetable import TIMETABLE, Entry
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, abbreviate, error, note, warning

TIMEOUT = timedelta(minutes=1)
"""Whatever waits longer than this while workers run, waits for something that does not come."""
SWEEPS_LATE_AFTER = 3
"""Intervals, and never less than a minute: X8 alarms after two, and one is lost when a worker is replaced."""
JUDGED_OTHERWISE = ("submissions.drain", *HEARTBEAT_QUEUES)
"""By the age of what waits for it, and by `canaries`."""
ODD_LATELY = timedelta(days=1)
MAX_CLOCK_STEP = timedelta(seconds=2)
"""What NTP may move a clock back by at once without anybody having to know."""


def check_pauses(place: Context) -> list[Finding]:
    """What an operator has paused; what is late because of it is not told of."""
    from models import pauses as paused

    now = place.now()
    return [
        warning(
            "PAUSED",
            f"The {row.kind} {row.name} has been paused for {_ago(now, row.paused_at)}"
            + (f", until {format_timestamp(row.until)}" if row.until else "")
            + (f": {row.reason}" if row.reason else "."),
            f"./run resume {row.name} once its reason is gone.",
        )
        for row in paused.list_in_effect(place.conn, now)
    ]


def _paused(place: Context) -> set[str]:
    """The tasks that are paused, by themselves or with their queue."""
    from models import pauses as paused
    from models.submissions import PUBLIC_TASKS

    found = paused.paused_names(place.conn, place.now())
    of_the_house = {entry.task for entry in TIMETABLE} | set(outbox_consumers())
    tasks = set(found.tasks) | {task for task in of_the_house if queue_of(task) in found.queues}
    return tasks | (set(PUBLIC_TASKS) if "commands" in found.queues else set())


def check_sweeps(place: Context) -> list[Finding]:
    """Judged by effect: a beat that hangs still answers pings (X8, F41)."""
    if not place.should_run:
        return []
    from models import outbox
    from models.sweeps import last_runs

    now, seen, paused = place.now(), last_runs(place.conn), _paused(place)
    began = outbox.first_relay_at(place.conn)
    late, never = [], []
    for entry in TIMETABLE:
        if entry.task in JUDGED_OTHERWISE or entry.task in paused:
            continue
        ran = seen.get(entry.task)
        known = [instant for instant in (ran, place.supervised_since) if instant is not None]
        if ran is not None and ran > now + TIMEOUT:
            late.append(f"{entry.task} (not since the clock was set back)")
        elif not known:
            if began is None or now - began > _late_after(entry):
                never.append(entry.task)
        elif now - max(known) > _late_after(entry):
            late.append(f"{entry.task} (last {_ago(now, ran)} ago)" if ran else f"{entry.task} (never)")
    fix = "see that beat and a worker for sweeps run (logs of beat and sweeps), or start anew: ./run down and ./run up"
    found = []
    if late:
        found.append(warning("SWEEPS_LATE", f"These sweeps do not run when they should: {abbreviate(late)}.", fix))
    if never:
        kind = note if seen else warning  # of a young installation some have run before others
        found.append(kind("SWEEPS_NEVER_RAN", f"These sweeps have never run: {abbreviate(never)}.", fix))
    return found


def _late_after(entry: Entry) -> timedelta:
    """The first run of a young installation is late no sooner than any other."""
    if entry.full_pass_interval is not None:
        return 2 * entry.full_pass_interval
    return max(SWEEPS_LATE_AFTER * entry.every, TIMEOUT)


def check_clock_steps(place: Context) -> list[Finding]:
    """The database's clock against what was recorded by it: machines that agree may all have been set back."""
    from models import clock_steps as steps

    now = place.now()
    ahead = steps.lead_over_clock(place.conn, now)
    if ahead <= MAX_CLOCK_STEP:
        return []
    said = (
        f"The database's clock was set back: the newest of what was recorded by it is {_ago(now + ahead, now)} in its future. "
        "Nothing is lost; alerts whose orders have such events unlock when the clock has come to them."
    )
    fix = "set the clock of the database's machine right, and let NTP keep it (chrony or systemd-timesyncd)."
    return [warning("CLOCK_SET_BACK", said, fix)]


def check_queue_heartbeats(place: Context) -> list[Finding]:
    """A worker that takes nothing still answers pings (X8, X9).  When all are late it is beat, and `sweeps` says so."""
    if not place.should_run:
        return []
    from models.sweeps import last_runs

    now, seen, paused = place.now(), last_runs(place.conn), _paused(place)
    late = []
    for task, queue in HEARTBEAT_QUEUES.items():
        if task in paused:
            continue
        known = [instant for instant in (seen.get(task), place.supervised_since) if instant is not None]
        if known and now - max(known) > TIMEOUT:
            late.append(f"{queue} (for {_ago(now, max(known))})")
    if not late or len(late) == len(HEARTBEAT_QUEUES.keys() - paused):
        return []
    said = f"Nobody takes the canaries of these queues: {abbreviate(late)}."
    fix = "see that a worker for them runs; one that takes nothing ends by itself, as its log then says, and is started anew."
    return [error("CANARY_LATE", said, fix)]


def check_outbox(place: Context) -> list[Finding]:
    """What commits promised (P7): follow-ups, credits, notices."""
    from models import outbox

    if _paused(place) & {*outbox_consumers(), "outbox.relay"}:
        return []
    said = "What a commit promised has waited for {ago} to be carried out."
    fix = "see that workers run for consequences, notices and sweeps; what fails is in their logs: ./run jobs dead"
    return _too_old(place, outbox.oldest_due(place.conn), "PROMISES_LATE", said, fix)


def check_submissions(place: Context) -> list[Finding]:
    """Commands that came in by SQL."""
    from models import submissions as doors

    if _paused(place) & {*doors.PUBLIC_TASKS, "submissions.drain"}:
        return []
    said = "A command that was submitted by SQL has waited for {ago}."
    return _too_old(
        place,
        doors.oldest_waiting(place.conn),
        "SUBMISSIONS_LATE",
        said,
        "see that a worker runs for the queue commands.",
    )


def check_unlocks(place: Context) -> list[Finding]:
    """Sellers may cancel from the instant on all the same (R40): late are the mark and the telling (P3)."""
    from models import alerts

    if _paused(place) & {"npb.scan_open_alerts", "alerts.scan_seller_alerts"}:
        return []
    said = "An alert's time came {ago} ago, and nobody has been told."
    return _too_old(
        place, alerts.next_unlock_at(place.conn), "UNLOCKS_LATE", said, "see that beat and a worker for sweeps run."
    )


def check_dead_jobs(place: Context) -> list[Finding]:
    """Jobs that were given up; parked letters are told of by themselves."""
    from models import dead_jobs as jobs

    waiting = [
        f"{job.dead_job_id} {job.task}" for job in jobs.list_waiting(place.conn) if job.task != "notices.deliver"
    ]
    if not waiting:
        return []
    said = f"{_count(waiting, 'job')} given up and waiting for somebody: {abbreviate(waiting)}."
    return [warning("DEAD_JOBS", said, "./run jobs dead shows why; ./run jobs replay ID sets one going again.")]


def check_parked_emails(place: Context) -> list[Finding]:
    """Letters that no further try is made for (R102)."""
    from models import notices

    parked = notices.count_parked(place.conn)
    if not parked:
        return []
    said = f"{parked} letters could not be delivered and are not tried again."
    fix = "correct the addresses (members.record), then ./run jobs dead and ./run jobs replay ID."
    return [warning("NOTICES_PARKED", said, fix)]


def check_dead_letters(place: Context) -> list[Finding]:
    """Messages that workers took and could not use."""
    from models import dead_letters as odd

    latest = odd.list_newest(place.conn, limit=1)
    if not latest or place.now() - latest[0].received_at > ODD_LATELY:
        return []
    said = f"A message came that is no command of ours, the last one {_ago(place.now(), latest[0].received_at)} ago."
    return [note("ODD_MESSAGES", said, "./run jobs dead-letters shows what it was; correct its sender.")]


def check_invariants(place: Context) -> list[Finding]:
    """What is known to be broken, and what must hold of whatever changed lately: a finding each, with the ids."""
    from models.integrity import audit, month_audit
    from models.integrity import invariants as queries

    newest = month_audit.closed_months(place.conn)[-1:]
    scope, _ = audit.recent_scope(place.conn, place.now())
    found = {one.sentence: one for one in audit.open_violations(place.conn)}
    for one in queries.check(place.conn, place.now(), in_time=False, months=newest, scope=scope):
        found.setdefault(one.sentence, one)
    return [
        error(
            "INVARIANT_BROKEN",
            f"Broken: {one.sentence}: {abbreviate(one.ids)}.",
            "./run audit names all; report it as a bug.",
        )
        for one in found.values()
    ]


def _too_old(place: Context, since: datetime | None, code: str, said: str, fix: str) -> list[Finding]:
    if since is None or not place.should_run:
        return []
    now = place.now()
    return [warning(code, said.format(ago=_ago(now, since)), fix)] if now - since > TIMEOUT else []


def _ago(now: datetime, then: datetime) -> str:
    seconds = (now - then).total_seconds()
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


def _count(things: list[str], name: str) -> str:
    return f"One {name} is" if len(things) == 1 else f"{len(things)} {name}s are"
