"""Twenty mutants of the product, each of which the checks must catch by the name of what it breaks.

A mutant changes the current source (so it can't go stale unnoticed), a setting, or the schema of a database of its own.
The product contains none of this.
"""

from __future__ import annotations
import __future__

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from types import FunctionType
from typing import Any

from models import outbox
from models.db import database as db
from models.unit_of_work import UnitOfWork
from stress.db_checks import open_connection
from workers import lifecycle
from workers.app import app

Activation = Callable[[str], AbstractContextManager[None]]
"""Takes the database's URL; the mistake is in the code as long as the block runs."""
ahead = timedelta(0)
"""By how much the clock of this machine is ahead, for the mistake that believes it."""


@dataclass(frozen=True)
class Mutant:
    """One mistake.  `scenario` is what is played, `caught` the text that a violation must contain."""

    name: str
    scenario: str
    caught: str
    activate: Activation


def resolve_function(path: str) -> FunctionType:
    """Return the undecorated function at `module:qualified.name`."""
    module, _, name = path.partition(":")
    target: Any = importlib.import_module(module)
    for part in name.split("."):
        target = inspect.getattr_static(target, part) if inspect.isclass(target) else getattr(target, part)
    if hasattr(target, "run"):  # a task
        target = target.run
    target = inspect.unwrap(getattr(target, "__func__", target))
    assert isinstance(target, FunctionType), path
    return target


def rewrite_source(path: str, old: str, new: str) -> Activation:
    """Replace `old` with `new` in the source of a function."""

    @contextlib.contextmanager
    def activate(_database_url: str = "") -> Iterator[None]:
        function = resolve_function(path)
        lines = textwrap.dedent(inspect.getsource(function)).splitlines(keepends=True)
        begins = next(n for n, line in enumerate(lines) if line.startswith("def "))
        source = "".join(lines[begins:])
        assert old in source, f"{path} no longer contains {old!r}: update the mutant"
        attributes: dict[str, Any] = {}
        flags = __future__.annotations.compiler_flag
        exec(compile(source.replace(old, new), path, "exec", flags), function.__globals__, attributes)  # noqa: S102 - our own text
        before = function.__code__
        function.__code__ = attributes[function.__name__].__code__
        try:
            yield
        finally:
            function.__code__ = before

    return activate


def alter_statement(statement: str) -> Activation:
    @contextlib.contextmanager
    def activate(database_url: str) -> Iterator[None]:
        with open_connection(database_url) as conn:
            conn.execute(statement.encode())
        yield

    return activate


def override_settings(**settings: Any) -> Activation:
    """Change Celery settings in a worker for its lifetime."""

    @contextlib.contextmanager
    def activate(_database_url: str = "") -> Iterator[None]:
        app.conf.update(settings)
        for task in app.tasks.values():  # they have read the setting already
            for name, value in settings.items():
                setattr(task, name.removeprefix("task_"), value)
        yield

    return activate


def combine(*parts: Activation) -> Activation:
    """Activate all of these."""

    @contextlib.contextmanager
    def activate(database_url: str = "") -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for part in parts:
                stack.enter_context(part(database_url))
            yield

    return activate


def replace_function(path: str, replacement: str) -> Activation:
    @contextlib.contextmanager
    def activate(_database_url: str = "") -> Iterator[None]:
        def resolve(where: str) -> tuple[Any, str]:
            module, _, names = where.partition(":")
            owner: Any = importlib.import_module(module)
            *parts, last = names.split(".")
            for part in parts:
                owner = getattr(owner, part)
            return owner, last

        owner, name = resolve(path)
        setattr(owner, name, getattr(*resolve(replacement)))
        yield

    return activate


@contextlib.contextmanager
def _one_engine_for_all(_database_url: str = "") -> Iterator[None]:
    """Open the database in the main process of a worker and let its children share the connection."""
    shared = lifecycle.open_process_database()
    with shared.transaction() as conn:
        shared.clock.now(conn)
    setattr(shared, "dispose", lambda: None)  # noqa: B010 - what a worker tries at its start must not end the session
    lifecycle.open_process_database = lambda *_, **__: shared
    yield


@contextlib.contextmanager
def _insert_outbox_early(database_url: str) -> Iterator[None]:
    elsewhere = db.connect(database_url)
    before = UnitOfWork.enqueue

    def enqueue(self: Any, messages: Any) -> None:
        with elsewhere.transaction() as conn:
            outbox.enqueue_messages(conn, messages, self.now)

    UnitOfWork.enqueue = enqueue  # type: ignore[method-assign]
    try:
        yield
    finally:
        UnitOfWork.enqueue = before  # type: ignore[method-assign]
        elsewhere.dispose()


_CLOCK = "__import__('datetime').datetime.now(UTC) + __import__('stress.mutants', fromlist=['x']).ahead"

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "no unique key for requests",
            "duplicate_request",
            "was answered in two ways",
            alter_statement("ALTER TABLE unwind.requests DROP CONSTRAINT pk_requests"),
        ),
        Mutant(
            "no unique key for ledger lines",
            "repeated_outbox_messages",
            "ledger is",
            alter_statement(
                "ALTER TABLE unwind.ledger_lines DROP CONSTRAINT uq_ledger_lines_key; "
                "DROP INDEX unwind.uq_ledger_lines_one_reset_or_credit"
            ),
        ),
        Mutant(
            "no fence around emails",
            "transaction_left_open",
            "was sent and is to be sent again",
            rewrite_source(
                "models.notices:record_notice_deliveries",
                "attempts.get(o.notice.notice_id) == o.notice.attempts",
                "o.notice.notice_id in attempts",
            ),
        ),
        Mutant(
            "the worker's clock",
            "two_clocks",
            "lies in the future of the database's clock",
            rewrite_source(
                "models.db.database:DatabaseClock.send_now", "cursor.fetchall()[0].instant.astimezone(UTC)", _CLOCK
            ),
        ),
        Mutant(
            "a second late",
            "on_the_second",
            "by the rules ('done', None)",
            rewrite_source("policies.cancellation:_seller_basis", "now >= alert.unlocks_at", "now > alert.unlocks_at"),
        ),
        Mutant("publish before commit", "dies_at_its_commit", "reset or credit", _insert_outbox_early),
        Mutant(
            "no relay",
            "publishes_once",
            "is in the outbox and was never done",
            rewrite_source("tasks.outbox:relay", "range(MAX_BATCHES)", "range(0)"),
        ),
        Mutant(
            "published once and never again",
            "republishes_lost_messages",
            "is in the outbox and was never done",
            rewrite_source(
                "models.outbox:claim_for_publish",
                "due_at = CAST(:now AS timestamptz)",
                "due_at = CAST('infinity' AS timestamptz)",
            ),
        ),
        Mutant(
            "acknowledged early",
            "killed_in_the_middle",
            "never answered",
            combine(
                override_settings(task_acks_late=False),
                rewrite_source(
                    "workers.transport.acknowledgement:is_settled", 'getattr(message, "settled", False)', "True"
                ),
            ),
        ),
        Mutant("one engine for all children", "many_at_once", "belongs to several children", _one_engine_for_all),
        Mutant(
            "a commit that fails is forgotten",
            "dies_at_its_commit",
            "nothing of it is kept",
            rewrite_source("models.db.database:Database.transaction", "            raise\n", ""),
        ),
        Mutant(
            "returned twice",
            "order_life",
            "units of the rules",
            rewrite_source(
                "models.returns:return_items",
                "execute(conn, _RETURN_ITEMS, values)",
                "execute(conn, text(_RETURN_ITEMS.text.replace('t.quantity + a', 't.quantity + a.units + a')), values)",
            ),
        ),
        Mutant(
            "anybody is the seller",
            "foreign_member",
            "by the rules ('refused', 'NOT_A_PARTY')",
            rewrite_source("policies.cases:Case.role_of", "return None", "return Role.SELLER"),
        ),
        Mutant(
            "filed at once",
            "automated_orders",
            "automation did file",
            rewrite_source(
                "policies.automation:files_npb_at", 'setting_duration("file_npb_after", setting)', "timedelta(0)"
            ),
        ),
        Mutant(
            "a hold is ignored",
            "automated_orders",
            "automation did cancel",
            rewrite_source("policies.automation:_after_automation_hold", "order.held_at is None", "True"),
        ),
        Mutant(
            "an exclusion is ignored",
            "automated_orders",
            "automation did cancel",
            rewrite_source(
                "policies.automation:_may_automation_touch",
                " and case.order.buyer_id not in case.seller.automation.excluded",
                "",
            ),
        ),
        Mutant(
            "kombu's own acknowledgement",
            "cut_acknowledgement",
            "never answered",
            replace_function("workers.transport.qos:QoS.ack", "kombu.transport.redis:QoS.ack"),
        ),
        Mutant(
            "kombu's own transport",
            "cut_delivery",
            "never answered",
            replace_function("workers.transport.connection:Transport", "kombu.transport.redis:Transport"),
        ),
        Mutant(
            "starts are tracked",
            "results_away",
            "never answered",
            override_settings(task_track_started=True, result_backend_always_retry=False),
        ),
        Mutant(
            "done whatever happened",
            "dies_at_its_commit",
            "nothing of it is kept",
            rewrite_source(
                "workers.task:BaseTask.validate_and_run",
                "    answers: list[Answer] = retry_on_conflict(lambda: self.run([command]))\n",
                "    try:\n        answers = retry_on_conflict(lambda: self.run([command]))\n    except Exception:\n"
                "        answers = [Answer('done', command.request_id, 'Done.')]\n",
            ),
        ),
    )
}
