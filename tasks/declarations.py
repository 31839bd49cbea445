"""Declarations of commands: one per public task, from which all interfaces derive what they need.

`command_task` registers the task with Celery and in `COMMANDS`. The argument model has the name on the wire. The queue,
the validation of messages, the commands that the SQL interface accepts (`workers.migrate`), the options of an order,
`contract/` and the tests of bad input follow from the declaration.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from celery import shared_task
from pydantic import create_model

import tasks
from models.stored_answers import Answer
from policies.cases import Actor
from policies.options import ACTIONS, OPTION_EXAMPLE_COMMENT, Action, Option, Subject
from policies.verdicts import Verdict
from tasks.command import Command

CommandT = TypeVar("CommandT", bound=Command)
Arguments = Callable[[Subject, Actor], Mapping[str, Any]]

_RULE_ID = re.compile(r" \(\[?[A-Z]+[0-9]+\]?\)")

SELLER: dict[str, Any] = {"order_id": 1003, "member_id": "s-881"}
BUYER: dict[str, Any] = {"order_id": 1003, "member_id": "b-77"}
"""The order and the actor of examples."""


@dataclass(frozen=True, slots=True)
class DeclaredOption(Generic[CommandT]):
    label: str
    decide: Callable[[CommandT, Subject, datetime], Verdict | Option]
    arguments: Arguments = lambda _subject, _actor: {}


@dataclass(frozen=True, slots=True)
class Declaration:
    model: type[Command]
    example: Mapping[str, Any]
    about: str
    option: DeclaredOption[Any] | None = None

    def option_arguments(self, subject: Subject, actor: Actor) -> dict[str, Any]:
        """Return the arguments, beside order and actor, with which the command answers as its option says."""
        assert self.option is not None
        arguments = {k: v for k, v in self.example.items() if k not in ("order_id", "removal_id", "member_id", "staff")}
        if "comment" in self.model.model_fields:
            arguments["comment"] = OPTION_EXAMPLE_COMMENT
        return arguments | dict(self.option.arguments(subject, actor))

    def ask(self, subject: Subject, actor: Actor, now: datetime) -> Verdict | Option:
        assert self.option is not None
        named = {"order_id": subject.case.order.order_id, "member_id": actor.member_id, "staff": actor.staff}
        arguments = {"request_id": "option"} | named | self.option_arguments(subject, actor)
        # Without validation, which would take longer than the policy.
        return self.option.decide(self.model.model_construct(**arguments), subject, now)


COMMANDS: dict[str, Declaration] = {}
"""The declared commands by their names on the wire: all of them once `tasks.import_all` has run."""


def all_commands() -> dict[str, Declaration]:
    tasks.import_all()
    return COMMANDS


def command_task(
    model: type[CommandT],
    *,
    name: str = "",
    arguments: Mapping[str, Any] | None = None,
    example: Mapping[str, Any],
    option: DeclaredOption[CommandT] | None = None,
) -> Callable[[Callable[[list[CommandT]], list[Answer]]], Any]:
    """Declare the public task that answers a batch of commands; the decorated function becomes the Celery task.

    With `name`, its name on the wire, the command's model is made from `model` and these `arguments`: types, or pairs
    of type and default.
    """
    if name:
        model = create_model(name, __base__=model, task=(ClassVar[str], name), **(arguments or {}))

    def declare(run: Callable[[list[CommandT]], list[Answer]]) -> Any:
        about = _RULE_ID.sub("", (inspect.getdoc(run) or "").partition("\n")[0])
        declaration = COMMANDS[model.task] = Declaration(model, example, about, option)
        if option is not None:
            ACTIONS[model.task] = Action(option.label, declaration.ask, per_removal="removal_id" in model.model_fields)
        return shared_task(name=model.task, command_model=model)(run)

    return declare
