"""Tests of the judgement and the rendering of benchmark results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import charts, report
from benchmarks.harness import SCALES, Bar, alternate, result


def test_a_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    one = result("B1", "", "", Bar(0.5, 1), [1, 10, 6], [4, 10, 10])
    assert one.values == [0.25, 1.0, 0.6]
    assert one.value == 0.6
    assert one.met


@pytest.mark.parametrize(("bar", "met"), [(Bar(2, 3), True), (Bar(2.1, 3), False), (Bar(2, 1, at_least=False), True)])
def test_a_bar_is_met_at_its_limit(bar: Bar, met: bool) -> None:
    assert result("B1", "", "", bar, [4], [2]).met is met


def test_sides_take_turns_at_going_first() -> None:
    order: list[str] = []

    def cell(name: str) -> float:
        order.append(name)
        return 0.0

    alternate(4, lambda: cell("a"), lambda: cell("b"))
    assert "".join(order) == "abbaabba"


def test_results_are_charted_stored_and_merged(tmp_path: Path) -> None:
    two = [result(name, "x", "s", Bar(1, 1), [2.0], [1.0]) for name in ("B10", "B9")]
    kept = report.write(report.record(two, SCALES["quick"], 60), tmp_path)
    again = report.write(
        report.record([result("B9", "y", "s", Bar(1, 1), [3.0], [1.0])], SCALES["quick"], 60), tmp_path
    )
    assert [(one["measure"], one["what"]) for one in kept["results"]] == [("B10", "x"), ("B9", "x")]
    assert [(one["measure"], one["what"]) for one in again["results"]] == [("B9", "y"), ("B10", "x")]
    assert json.loads((tmp_path / "latest.json").read_text()) == again
    drawn = charts.draw(again, tmp_path)
    assert [path.name for path in drawn] == ["speed-relay.svg", "speed-bars.svg"]
    assert all("http://www.w3.org" in path.read_text() and "<script" not in path.read_text() for path in drawn)
