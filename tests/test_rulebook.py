"""Tests of docs/rulebook.toml and docs/rules.md: every rule is stated once and tested."""

from __future__ import annotations

import pytest

from tools.rules_page import RULES_PAGE, rule_book, rule_ids, rules_page, stating_tests

SENTENCES = {rule: says for section in rule_book() for rule, says in section.rules.items()}


def test_the_rule_book_has_every_id_once() -> None:
    expected = [("R", 104), ("T", 23), ("N", 18), ("A", 22), ("E", 10)]
    assert set(SENTENCES) == {f"{kind}{number}" for kind, last in expected for number in range(1, last + 1)}
    assert sum(len(section.rules) for section in rule_book()) == len(SENTENCES)


@pytest.mark.parametrize("rule", SENTENCES)
def test_each_rule_is_one_sentence(rule: str) -> None:
    """Of useful length, and without characters that break the table."""
    says = SENTENCES[rule]
    assert says[0].isupper() or says[0].isdigit()
    assert says.endswith(".")
    assert "|" not in says
    assert "\n" not in says
    assert 30 <= len(says) <= 200


def test_every_rule_is_stated_by_a_test() -> None:
    stated = stating_tests()
    assert [rule for rule in SENTENCES if rule not in stated] == []
    assert sorted(set(stated) - set(SENTENCES)) == [], "tests name rules that are not in the book"


def test_page_is_up_to_date() -> None:
    assert RULES_PAGE.read_text(encoding="utf-8") == rules_page(), "docs/rules.md is stale: run ./run docs"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("States R40 to R42 and T7.", {"R40", "R41", "R42", "T7"}),
        ("N07: sent once.", {"N7"}),
        ("R1 to R62 are a chapter.", set()),
        ("ERR7, A11Y and 3R2 are no ids; A4 is paper.", {"A4"}),
    ],
)
def test_ids_are_found_in_docstrings(text: str, ids: set[str]) -> None:
    """A short range counts each id; a whole chapter counts none, because it states nothing in particular."""
    assert rule_ids(text) == ids


def test_a_test_with_a_case_for_each_may_name_a_chapter() -> None:
    assert len(rule_ids("N1 to N18.", whole_chapters=True)) == 18
