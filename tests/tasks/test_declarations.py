"""Tests that every declared command is complete; a failure names the command, or the file to write."""

from __future__ import annotations

from typing import ClassVar

import pytest

from models.stored_answers import Answer
from policies.verdicts import Granted
from tasks.command import ActorCommand, Comment, OrderCommand
from tasks.command_parsing import parse_command
from tasks.declarations import SELLER, Declaration, DeclaredOption
from tests.bad_input import COMMANDS, good_arguments

NO_OPTION = {"orders.options": "it returns the options", "drafts.edit": "a draft is named", "drafts.verify": "the same"}


def missing_parts(declaration: Declaration) -> list[str]:
    model = declaration.model
    problems = []
    if isinstance(answer := parse_command(model, declaration.example, "example"), Answer):
        problems.append(f"{model.task}: the example does not fit its arguments: {answer.errors}")
    elif isinstance(answer := parse_command(model, good_arguments(declaration), "good"), Answer):
        problems.append(f"tests/bad_input.py: no good value for an argument of {model.task}: {answer.errors}")
    if issubclass(model, ActorCommand) and declaration.option is None and model.task not in NO_OPTION:
        problems.append(f"{model.task}: the declaration needs an option, its label in orders.options")
    if not declaration.about:
        problems.append(f"{model.task}: it needs a sentence or docstring, which contract/ and docs/ repeat")
    return problems


@pytest.mark.parametrize("task", COMMANDS)
def test_declaration_is_complete(task: str) -> None:
    assert missing_parts(COMMANDS[task]) == []


class Incomplete(OrderCommand):
    task: ClassVar[str] = "ocr.incomplete"
    comment: Comment
    count: int = "many"  # type: ignore[assignment]


def test_an_incomplete_declaration_names_the_command() -> None:
    """The test above must be able to fail."""
    problems = missing_parts(Declaration(Incomplete, SELLER, "", None))
    assert [problem.partition(":")[0] for problem in problems] == ["ocr.incomplete"] * 3
    option: DeclaredOption[Incomplete] = DeclaredOption("do it", lambda _command, subject, _now: Granted(subject.case))
    complete = Declaration(Incomplete, SELLER | {"comment": "x"}, "Do it.", option)
    assert [problem.partition(":")[0] for problem in missing_parts(complete)] == ["tests/bad_input.py"]
