"""Tests that errors and events fit the terminal, and are whole lines in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.plugins.market import FILED, Market
from tools.tour import COLUMNS, PseudoTerminal
from workers.settings import CHECKOUT

LONG_NAME = "/nowhere/" + "a-history-with-a-long-name/" * 3 + "of 29 November.jsonl"
ERRORS = (
    ["replay", LONG_NAME],
    ["replay", "--until", "the day after tomorrow or the day after that, whichever of the two is later", "x"],
    ["no-command-has-a-name-as-long-as-this-one-which-does-not-fit-in-a-line-of-the-terminal"],
    ["explain", "order", "1003"],
)


def command(words: list[str], database_url: str) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    changes = {"DATABASE_URL": database_url, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm"}
    return [sys.executable, "-m", "workers", *words], environment | changes


def read_terminal(words: list[str], database_url: str) -> tuple[int, str]:
    terminal = PseudoTerminal(*command(words, database_url))
    output = ""
    while (part := terminal.read()) is not None:
        output += part
    return terminal.process.wait(60), output


def read_pipe(words: list[str], database_url: str) -> tuple[int, str]:
    program, environment = command(words, database_url)
    done = subprocess.run(
        program, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("words", [ERRORS[0], *(pytest.param(words, marks=pytest.mark.long) for words in ERRORS[1:])])
def test_errors_are_wrapped_on_a_terminal_only(words: list[str]) -> None:
    nothing = "postgresql+psycopg://somebody@127.0.0.1:1/nothing"
    shown, piped = read_terminal(words, nothing), read_pipe(words, nothing)
    assert max(map(len, shown[1].splitlines())) <= COLUMNS
    assert max(map(len, piped[1].splitlines())) > COLUMNS
    assert (shown[0], "".join(shown[1].split())) == (piped[0], "".join(piped[1].split()))


def test_events_are_wrapped_on_a_terminal_only(market: Market, database_url: str) -> None:
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    shown, piped = read_terminal(["events"], database_url), read_pipe(["events"], database_url)
    as_json = [read(["events", "--json"], database_url) for read in (read_terminal, read_pipe)]
    assert max(map(len, shown[1].splitlines())) <= COLUMNS
    assert max(map(len, piped[1].splitlines())) > COLUMNS
    assert shown[1].split() == piped[1].split()
    assert as_json[0] == as_json[1]
