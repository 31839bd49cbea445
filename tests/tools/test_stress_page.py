"""Do the figures of the promises' page come from the reports that are kept?"""

from __future__ import annotations

from typing import Any

from tools.stress_page import ADDED_UP, figures, reports, with_figures

PAGE = "before\n\n<!-- figures of ./run torture -->\nold\n<!-- end -->\n\nafter\n"


def a_run(**fields: Any) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys((name for name, _ in ADDED_UP), 0)
    about = {"seed": 7, "began": "2026-03-28T10:00:00Z", "seconds": 600.0, "machine": {"cores": 2}, "violations": []}
    return known | about | {"dry_after": {"longest": 9.6}, "rings_per_job": 1.25} | fields


def test_runs_are_added_up() -> None:
    """Counts are summed; of times and rings the worst is shown."""
    page = figures(
        [a_run(commands=40_000), a_run(commands=12_345, seed=8, dry_after={"longest": 21.2}, violations=["x"])]
    )
    assert "| commands sent through all doors | 52,345 |" in page
    assert "| minutes | 20 |" in page
    assert "| violations of any kind | 1 |" in page
    assert "at the latest | 21 s |" in page
    assert "Seeds: 7 (2026-03-28), 8 (2026-03-28)." in page


def test_only_the_figures_of_a_page_are_written_anew() -> None:
    """What people wrote around them stays."""
    page = with_figures(PAGE)
    assert page.startswith("before\n\n<!-- figures of ./run torture -->\n")
    assert page.endswith("<!-- end -->\n\nafter\n")
    assert "old" not in page
    assert with_figures(page) == page


def test_no_report_that_is_kept_violates_anything() -> None:
    """promises.md, Torture: 0 lost, 0 doubled, 0 early, and all done within half a minute after the last fault."""
    for run in reports():
        assert (run["lost"], run["doubled"], run["early"], run["violations"]) == (0, 0, 0, [])
        assert run["dry_after"]["longest"] <= 30
