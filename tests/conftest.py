"""Fixture plugins that most folders use, the order of the files, and the report of the guarantees.

A run with `-m guarantee` prints each guarantee of docs/guarantees.md beside its tests.
"""

from __future__ import annotations

import textwrap
from collections import Counter

import pytest
from hypothesis import settings

from tests.plugins.pooler import PGBOUNCER
from tools.guarantees_page import guarantees

pytest_plugins = [
    "tests.plugins.servers",
    "tests.plugins.postgres",
    "tests.plugins.simulation",
    "tests.plugins.stored_rows",
    "tests.plugins.market",
]

# Hypothesis fails a slow example after 200 ms; here that says only how loaded the machine is.
settings.register_profile("without_deadline", settings(), deadline=None)
settings.load_profile("without_deadline")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guarantee(id, ...): the test shows these guarantees of docs/guarantees.md")


def pytest_report_header() -> str | None:
    return None if PGBOUNCER else "pgbouncer: not installed, so the tests of poolers do not run"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in sorted({str(name) for mark in item.iter_markers("guarantee") for name in mark.args}):
            if name not in guarantees():
                raise pytest.UsageError(f"{item.nodeid} shows {name}, which docs/guarantees.md does not make")
            item.user_properties.append(("guarantee", name))
    if hasattr(config, "workerinput"):
        _sort_files_by_duration(items)


def _sort_files_by_duration(items: list[pytest.Item]) -> None:
    # In a distributed run no long file begins when the other processes end.
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[item.location[0]] += _expected_seconds(item)
    items.sort(key=lambda item: (-seconds[item.location[0]], item.location[0]))


def _expected_seconds(item: pytest.Item) -> int:
    """A rough guess in tenths of a second: a test's own timeout is several times its duration.

    Tests without servers and files take milliseconds, so they come last and end at the same time in all processes.
    """
    timeout = item.get_closest_marker("timeout")
    if timeout is not None and item.get_closest_marker("long"):
        return int(timeout.args[0]) * 2
    if item.get_closest_marker("long"):
        return 150
    if item.get_closest_marker("e2e"):
        return 40
    return 5 if {"servers", "tmp_path", "tmp_path_factory"} & set(getattr(item, "fixturenames", ())) else 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if "guarantee" not in str(config.getoption("markexpr")):
        return
    outcomes_by_guarantee: dict[str, dict[str, list[str]]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            if isinstance(report, pytest.TestReport) and (report.when == "call" or outcome != "passed"):
                test = report.nodeid.partition("[")[0]
                for _, name in (p for p in report.user_properties if p[0] == "guarantee"):
                    outcomes_by_guarantee.setdefault(str(name), {}).setdefault(test, []).append(outcome)
    terminalreporter.section("guarantees")
    for name, text in guarantees().items():
        sentence = text.replace("**", "")
        terminalreporter.write_line(textwrap.fill(f"{name}  {sentence}", 118, subsequent_indent="    "), bold=True)
        for test, outcomes in outcomes_by_guarantee.get(name, {"no test of this run shows it": ["failed"]}).items():
            good = set(outcomes) == {"passed"}
            cases = f"  ({len(outcomes)} cases)" if len(outcomes) > 1 else ""
            word = "passed" if good else "failed"
            terminalreporter.write_line(f"    {word}  {test}{cases}", green=good, red=not good)
