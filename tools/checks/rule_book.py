"""Check that every rule and guarantee is stated once, in one sentence, and shown by a test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tools.guarantees_page import guarantees, showing_tests
from tools.rules_page import Section, rule_book, stating_tests

RULE_COUNTS = {"R": 124, "T": 23, "N": 22, "A": 22, "E": 10}
GUARANTEE_COUNT = 9
MIN_CHARACTERS = 30
MAX_CHARACTERS = 200


def rule_book_problems() -> list[str]:
    return [
        *problems_of_rules(rule_book(), stating_tests()),
        *problems_of_guarantees(guarantees(), showing_tests()),
    ]


def problems_of_rules(sections: Sequence[Section], tested: Collection[str]) -> list[str]:
    """Missing, unknown and repeated ids, sentences of a wrong form, and rules that no test states."""
    sentences = [item for section in sections for item in section.rules.items()]
    ids = [rule for rule, _ in sentences]
    expected = {f"{kind}{number}" for kind, last in RULE_COUNTS.items() for number in range(1, last + 1)}
    return [
        *(f"{rule} is missing in docs/rulebook.toml" for rule in sorted(expected - set(ids))),
        *(f"{rule} is in docs/rulebook.toml and no known rule" for rule in sorted(set(ids) - expected)),
        *(f"{rule} is in docs/rulebook.toml twice" for rule in sorted({rule for rule in ids if ids.count(rule) > 1})),
        *(f"{rule} is not one sentence of useful length" for rule, text in sentences if not is_sentence(text)),
        *(f"{rule} is stated by no test" for rule in ids if rule not in tested),
        *(f"a test states {rule}, which is no rule" for rule in sorted(set(tested) - set(ids))),
    ]


def is_sentence(text: str) -> bool:
    """Whether a text fits the table: 30 to 200 characters, a capital or a digit first, a period last."""
    return (
        (text[:1].isupper() or text[:1].isdigit())
        and text.endswith(".")
        and not {"|", "\n"} & set(text)
        and MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS
    )


def problems_of_guarantees(sentences: Mapping[str, str], shown: Collection[str]) -> list[str]:
    expected = [f"P{number}" for number in range(1, GUARANTEE_COUNT + 1)]
    return [
        *(
            []
            if list(sentences) == expected
            else [f"docs/guarantees.md must state {', '.join(expected)} in this order"]
        ),
        *(
            f"{name} does not begin in bold or end in a period"
            for name, text in sentences.items()
            if not _is_bold(text)
        ),
        *(f"{name} is shown by no test" for name in expected if name not in shown),
    ]


def _is_bold(text: str) -> bool:
    return text.startswith("**") and text.endswith(".")
