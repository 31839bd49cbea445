"""Is every promise written down once, and is there a test that shows it?"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools.guarantees_page import GUARANTEES_PAGE, guarantees, guarantees_page, tests_by_guarantee
from workers.settings import CHECKOUT


def test_there_are_nine_promises() -> None:
    """promises.md: P1 to P9, each a sentence whose first words are bold."""
    assert list(guarantees()) == [f"P{number}" for number in range(1, 10)]
    assert all(says.startswith("**") and says.endswith(".") for says in guarantees().values())


@pytest.mark.parametrize("promise", [f"P{number}" for number in range(1, 10)])
def test_every_promise_is_shown_by_a_test(promise: str) -> None:
    """No promise without a test that is marked with it."""
    assert tests_by_guarantee().get(promise)


def test_the_page_names_the_tests_that_are_marked() -> None:
    """docs/guarantees.md is never behind the tests: `./run docs` writes it anew."""
    assert GUARANTEES_PAGE.read_text("utf-8") == guarantees_page(), (
        "docs/guarantees.md is stale: ./run docs writes it anew"
    )


def test_a_run_of_promises_prints_each_sentence_beside_its_tests() -> None:
    """Whoever asks for the promises reads what was shown; one that nothing shows in this run is said too."""
    asked = [sys.executable, "-m", "pytest", "-m", "guarantee", "-p", "no:cacheprovider", "tests/policies/test_ocr.py"]
    ran = subprocess.run(asked, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=100)
    lines = ran.stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("P9  Only a party or staff acts on an order"))
    shows = next(line for line in lines[at:] if line.startswith("    passed"))
    assert "tests/policies/test_ocr.py::test_a_stranger_can_do_nothing  (4 cases)" in shows
    first = next(n for n, line in enumerate(lines) if line.startswith("P1  No accepted command is lost."))
    nothing = next(line for line in lines[first:] if line.startswith("    failed"))
    assert nothing.endswith("no test of this run shows it")
