"""The marker `guarantee("P1")`; a run with `-m guarantee` prints each guarantee beside its tests.

The sentences come from docs/guarantees.md.
"""

from __future__ import annotations

import textwrap

import pytest

from tools.guarantees_page import guarantees

_WIDTH = 118


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guarantee(id, ...): the test shows these guarantees of docs/guarantees.md")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in sorted({str(name) for mark in item.iter_markers("guarantee") for name in mark.args}):
            if name not in guarantees():
                raise pytest.UsageError(f"{item.nodeid} shows {name}, which docs/guarantees.md does not make")
            item.user_properties.append(("guarantee", name))


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
        terminalreporter.write_line(textwrap.fill(f"{name}  {sentence}", _WIDTH, subsequent_indent="    "), bold=True)
        for test, outcomes in outcomes_by_guarantee.get(name, {"no test of this run shows it": ["failed"]}).items():
            good = set(outcomes) == {"passed"}
            cases = f"  ({len(outcomes)} cases)" if len(outcomes) > 1 else ""
            word = "passed" if good else "failed"
            terminalreporter.write_line(f"    {word}  {test}{cases}", green=good, red=not good)
