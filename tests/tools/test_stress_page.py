"""Tests of the torture figures in docs/guarantees.md."""

from __future__ import annotations

from typing import Any

from tools.stress_page import ADDED_UP, figures, reports, with_figures

PAGE = "before\n\n<!-- figures of ./run torture -->\nold\n<!-- end -->\n\nafter\n"


def make_report(**fields: Any) -> dict[str, Any]:
    counts: dict[str, Any] = dict.fromkeys((name for name, _ in ADDED_UP), 0)
    metadata = {"seed": 7, "began": "2026-03-28T10:00:00Z", "seconds": 600.0, "machine": {"cores": 2}, "violations": []}
    return counts | metadata | {"seconds_to_idle": {"longest": 9.6}, "publishes_per_outbox_message": 1.25} | fields


def test_counts_are_summed_and_the_worst_time_is_shown() -> None:
    page = figures(
        [
            make_report(commands=40_000),
            make_report(commands=12_345, seed=8, seconds_to_idle={"longest": 21.2}, violations=["x"]),
        ]
    )
    assert "| commands sent | 52,345 |" in page
    assert "| minutes | 20 |" in page
    assert "| violations of any kind | 1 |" in page
    assert "until all work was done | 21 s |" in page
    assert "Seeds: 7 (2026-03-28), 8 (2026-03-28)." in page


def test_only_the_figures_of_a_page_are_replaced() -> None:
    page = with_figures(PAGE)
    assert page.startswith("before\n\n<!-- figures of ./run torture -->\n")
    assert page.endswith("<!-- end -->\n\nafter\n")
    assert "old" not in page
    assert with_figures(page) == page


def test_stored_reports_have_no_violation() -> None:
    for run in reports():
        assert (run["lost"], run["doubled"], run["early"], run["violations"]) == (0, 0, 0, [])
        assert run["seconds_to_idle"]["longest"] <= 30
