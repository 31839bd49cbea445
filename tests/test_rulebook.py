"""Is every rule written down, and is there a test for each?"""

from __future__ import annotations

import pytest

from tools.rules_page import RULES_PAGE, rule_book, rule_ids, rules_page, tests_by_rule

SENTENCES = {rule: says for section in rule_book() for rule, says in section.rules.items()}


def test_the_rule_book_has_every_id_once() -> None:
    """House: an id in code leads somewhere."""
    wanted = [("R", 104), ("T", 23), ("N", 18), ("A", 22), ("E", 10)]
    assert set(SENTENCES) == {f"{kind}{number}" for kind, last in wanted for number in range(1, last + 1)}
    assert sum(len(section.rules) for section in rule_book()) == len(SENTENCES)


@pytest.mark.parametrize("rule", SENTENCES)
def test_each_rule_is_one_sentence(rule: str) -> None:
    """One sentence, long enough to say something, that does not break the table it stands in."""
    says = SENTENCES[rule]
    assert says[0].isupper() or says[0].isdigit()
    assert says.endswith(".")
    assert "|" not in says
    assert "\n" not in says
    assert 30 <= len(says) <= 200


def test_every_rule_is_stated_by_a_test() -> None:
    """No rule, transition, notice, decision or example without a test function or a history that names it."""
    stated = tests_by_rule()
    assert [rule for rule in SENTENCES if rule not in stated] == []
    assert sorted(set(stated) - set(SENTENCES)) == [], "tests name rules that are not in the book"


def test_the_page_is_what_the_generator_prints() -> None:
    """docs/rules.md is never edited by hand and never behind the tests: `./run docs` writes it anew."""
    assert RULES_PAGE.read_text(encoding="utf-8") == rules_page(), "docs/rules.md is stale: ./run docs writes it anew"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("States R40 to R42 and T7.", {"R40", "R41", "R42", "T7"}),
        ("N07: told once.", {"N7"}),
        ("R1 to R62 are a chapter.", set()),
        ("ERR7, A11Y and 3R2 are no ids; A4 is paper.", {"A4"}),
    ],
)
def test_ids_are_found_in_docstrings(text: str, ids: set[str]) -> None:
    """Ranges of a few count each; a whole chapter counts none, for it states nothing in particular."""
    assert rule_ids(text) == ids


def test_a_test_with_a_case_for_each_may_name_a_chapter() -> None:
    """Eighteen letters are eighteen cases of one test function."""
    assert len(rule_ids("N1 to N18.", whole_chapters=True)) == 18
