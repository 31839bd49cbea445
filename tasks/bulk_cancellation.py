"""Cancellation of up to a thousand orders with one command, split into transactions of up to a hundred."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar

from celery import current_task
from pydantic import ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

from models import dead_jobs
from models.db.conflicts import retry_on_conflict
from models.stored_answers import AlreadyAnswered, Answer
from models.unit_of_work import UnitOfWork
from tasks.cancellation import CancelOrder, cancel_batch
from tasks.command import MAX_REQUEST_ID_LENGTH, Command, StrictModel
from tasks.command_parsing import parse_command
from tasks.declarations import SELLER, command_task

BATCH_SIZE = 100
"""Orders of one transaction; larger batches are not faster (docs/speed.md)."""
MAX_ORDERS = 1000
Batch = dict[int, CancelOrder]
"""Items of one transaction by their index in the command."""
JsonAnswer = dict[str, Any]


class InvalidItem(StrictModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    answer: Answer
    hash: str


class CancelMany(Command):
    task: ClassVar[str] = "orders.cancel_many"
    runs_alone: ClassVar[bool] = True  # it is a set, and reports its progress
    orders: Annotated[
        list[CancelOrder | InvalidItem],
        Field(min_length=1, max_length=MAX_ORDERS),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": MAX_ORDERS}),
    ]

    @field_validator("orders", mode="before")
    @classmethod
    def _validate_each_item(cls, items: Any, info: ValidationInfo) -> Any:
        if not isinstance(items, list) or len(items) > MAX_ORDERS:
            return items  # the command as a whole is invalid
        return [_parse_item(item, index, info.data.get("request_id", "")) for index, item in enumerate(items)]


def _parse_item(item: Any, index: int, request_id: str) -> CancelOrder | InvalidItem:
    item_id = _item_id(request_id, index)
    if isinstance(item, dict):
        command = parse_command(CancelOrder, item, item_id)
    else:
        command = Answer.invalid(item_id, [(f"orders.{index}", "must be an object with order_id and member_id")])
    if isinstance(command, Answer):
        return InvalidItem(answer=command, hash=dead_jobs.dead_job_payload_hash({"item": item}).hex())
    return command


def _item_id(request_id: str, index: int) -> str:
    # `<request_id>:<index>`, or its hash if that is longer than a request id may be.
    item_id = f"{request_id}:{index}"
    return item_id if len(item_id) <= MAX_REQUEST_ID_LENGTH else hashlib.sha256(item_id.encode()).hexdigest()


@command_task(CancelMany, example={"orders": [dict(SELLER), {"order_id": 1004, "member_id": "s-881", "dry_run": True}]})
def cancel_many(commands: list[CancelMany]) -> list[Answer]:
    """Cancel many orders. Each gets one answer, in the order of the items."""
    return [_cancel_many(command) for command in commands]


def _cancel_many(command: CancelMany) -> Answer:
    answers: dict[int, JsonAnswer] = {}
    items: Batch = {}
    for index, item in enumerate(command.orders):
        if isinstance(item, InvalidItem):
            answers[index] = item.answer.as_json()
        elif item.request_id == command.request_id:
            answers[index] = Answer.conflict(item).as_json()
        else:
            if command.accepted_at is not None:
                item.accept(command.accepted_at)
            items[index] = item
    for batch in _split_cancellations_into_batches(items):
        before_commit = partial(_collect_answers, command, answers, list(batch))
        try:
            retry_on_conflict(partial(cancel_batch, list(batch.values()), parent=command, before_commit=before_commit))
        except AlreadyAnswered as earlier:
            return earlier.answer
        if len(answers) < len(command.orders):
            _report_cancelled_items(len(answers), len(command.orders))
    return _combine_answers(command, answers)


def _collect_answers(
    command: CancelMany, answers: dict[int, JsonAnswer], indexes: Sequence[int], work: UnitOfWork[Any]
) -> None:
    # The commit of the last batch also stores the command's own answer.
    answers.update(zip(indexes, [answer.as_json() for answer in work.answers], strict=True))
    if len(answers) == len(command.orders):
        work.answer(command, _combine_answers(command, answers))


def _combine_answers(command: CancelMany, answers: dict[int, JsonAnswer]) -> Answer:
    in_order = [answers[index] for index in range(len(command.orders))]
    outcomes = [answer["outcome"] for answer in in_order]
    counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    return Answer.done(command, {"answers": in_order, "counts": counts})


def _split_cancellations_into_batches(items: Batch) -> Iterator[Batch]:
    # No order and no request id occurs twice in a batch. There is at least one batch, even an empty one: its commit
    # stores the answer of a command without valid items.
    batch: Batch = {}
    seen: set[int | str] = set()
    for index, item in items.items():
        if len(batch) == BATCH_SIZE or not seen.isdisjoint((item.order_id, item.request_id)):
            yield batch
            batch, seen = {}, set()
        batch[index] = item
        seen |= {item.order_id, item.request_id}
    yield batch


def _report_cancelled_items(answered: int, total: int) -> None:
    # Update the task's progress if a caller waits for its result; errors are ignored.
    if not current_task or current_task.name != CancelMany.task or current_task.request.ignore_result:
        return
    with suppress(Exception):
        current_task.update_state(state="PROGRESS", meta={"answered": answered, "of": total})
