"""Tests of the judgement and the rendering of benchmark results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import charts, report
from benchmarks.harness import SCALES, Bar, alternate, result


def test_ratio_is_the_median_of_the_pairs() -> None:
    entry = result("B1", "", "", Bar(0.5, 1), [1, 10, 6], [4, 10, 10])
    assert entry.values == [0.25, 1.0, 0.6]
    assert entry.value == 0.6
    assert entry.met


@pytest.mark.parametrize(("bar", "met"), [(Bar(2, 3), True), (Bar(2.1, 3), False), (Bar(2, 1, at_least=False), True)])
def test_bar_is_met_at_its_limit(bar: Bar, met: bool) -> None:
    assert result("B1", "", "", bar, [4], [2]).met is met


def test_sides_alternate_in_going_first() -> None:
    order: list[str] = []

    def measurement(name: str) -> float:
        order.append(name)
        return 0.0

    alternate(4, lambda: measurement("a"), lambda: measurement("b"))
    assert "".join(order) == "abbaabba"


def test_results_are_charted_stored_and_merged(tmp_path: Path) -> None:
    three = [result(name, "x", "s", Bar(1, 1), [2.0], [1.0]) for name in ("B10", "B9", "B4b")]
    first_record = report.write(report.record(three, SCALES["quick"], 60), tmp_path)
    merged_record = report.write(
        report.record([result("B9", "y", "s", Bar(1, 1), [3.0], [1.0])], SCALES["quick"], 60), tmp_path
    )
    assert [(entry["measure"], entry["what"]) for entry in first_record["results"]] == [
        ("B10", "x"),
        ("B9", "x"),
        ("B4b", "x"),
    ]
    assert [(entry["measure"], entry["what"]) for entry in merged_record["results"]] == [
        ("B4b", "x"),
        ("B9", "y"),
        ("B10", "x"),
    ]
    assert json.loads((tmp_path / "latest.json").read_text()) == merged_record
    charts_written = charts.draw(merged_record, tmp_path)
    assert [path.name for path in charts_written] == ["speed-relay.svg", "speed-bars.svg"]
    assert all("http://www.w3.org" in path.read_text() and "<script" not in path.read_text() for path in charts_written)
