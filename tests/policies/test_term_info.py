"""Tests that what operators read about each setting is what the settings accept."""

from __future__ import annotations

import re
from typing import Any

import pytest

from policies.term_parsing import terms_from_mapping, terms_to_mapping
from policies.terms import DEFAULT_TERMS, TERM_INFO, Terms


def accepted(name: str, value: Any) -> bool:
    if name == "OCR_SILENCE" and value != "none":
        value = {"decline_after": value}
    return isinstance(terms_from_mapping({name: value}), Terms)


def test_every_setting_has_a_sentence_a_unit_and_its_allowed_values() -> None:
    assert list(TERM_INFO) == list(terms_to_mapping(DEFAULT_TERMS))
    for name, info in TERM_INFO.items():
        assert re.fullmatch(r"[A-Z].{20,140}\.", info.about), name
        assert info.unit, name
        assert info.allowed, name


@pytest.mark.parametrize(("name", "allowed"), [(name, info.allowed) for name, info in TERM_INFO.items()])
def test_the_range_that_is_stated_is_the_range_that_is_accepted(name: str, allowed: str) -> None:
    """One step outside of it is refused."""
    if bounds := re.match(r"(\d+)([sd]) to (\d+)([sd])", allowed):
        first, unit, last, last_unit = int(bounds[1]), bounds[2], int(bounds[3]), bounds[4]
        lowest = f"{first}{unit}" if name != "NPB_UNLOCK_RESPONSE" else "7d"
        assert accepted(name, lowest)
        assert first == 0 or not accepted(name, f"{first - 1}{unit}")
        assert accepted(name, f"{last}{last_unit}") == (name != "NPB_UNLOCK_NO_RESPONSE")
        assert not accepted(name, f"{last + 1}{last_unit}")
    elif bounds := re.fullmatch(r"(\d+) to (\d+)", allowed):
        first, last = int(bounds[1]), int(bounds[2])
        assert accepted(name, first)
        assert accepted(name, last)
        assert not accepted(name, first - 1)
        assert not accepted(name, last + 1)
    elif " or " in allowed and name != "OCR_FILEABLE_STATUSES":
        words = [{"true": True, "false": False}.get(word, word) for word in allowed.split(" or ")]
        assert all(accepted(name, word) for word in words)
        assert not accepted(name, "other")
    else:
        assert accepted(name, terms_to_mapping(DEFAULT_TERMS)[name])
        assert not accepted(name, 1.5)
