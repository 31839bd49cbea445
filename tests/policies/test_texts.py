"""Tests of ids, one-line text and time zone names."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from policies.preconditions import check_comment
from policies.texts import escape_unprintable, is_identifier, is_one_line, is_storable, is_visible, replace_unprintable
from policies.zones import validate_zone

NOTHING = (
    "",
    " ",
    "\u0085",
    "\u2028",
    "\u2029",
    "\u200b",
    "\u200b\u200b",
    "\u2060",
    "\ufeff",
    "\u3164",
    "\u2800",
    "\u00a0",
    "\u0301",
)


@pytest.mark.parametrize("text", NOTHING)
def test_invisible_text_is_neither_id_nor_comment(text: str) -> None:
    assert not is_visible(text)
    assert not is_identifier(text)
    assert check_comment(text) is not None


@pytest.mark.parametrize("text", ["a\u0085b", "a\u2028b", "a\nb", "a\x00b", "a\x7fb", "\x1b[31m"])
def test_line_breaks_are_not_one_line(text: str) -> None:
    assert not is_one_line(text)
    assert not is_identifier(text)


@pytest.mark.parametrize("text", ["a\u200bb", "a\u202eb", "\ufeffa", "a\u00adb", "a\u3164"])
def test_ids_have_no_invisible_characters(text: str) -> None:
    assert is_one_line(text)
    assert not is_identifier(text)


@pytest.mark.parametrize("text", ["s-881", "castle_fan", "Žofie Ž.", "人", "नमस्\u200dते", "👩\u200d🚀", "e\u0301"])
def test_names_of_all_languages_are_ids(text: str) -> None:
    assert is_identifier(text)


@given(some.text(max_size=64))
def test_an_id_is_one_visible_line_whatever_it_is_made_of(text: str) -> None:
    if is_identifier(text):
        assert is_one_line(text)
        assert len(text.splitlines()) == 1
        assert not {unicodedata.category(c) for c in text} & {"Cc", "Zl", "Zp"}
    assert not is_one_line(text) or is_visible(text)


@given(some.text(max_size=64))
def test_replaced_text_is_printable_and_nothing_else_changes(text: str) -> None:
    assert replace_unprintable(text).isprintable()
    assert escape_unprintable(text).isprintable()
    assert [a for a, b in zip(text, replace_unprintable(text), strict=True) if a != b] == [
        c for c in text if not c.isprintable()
    ]


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "b\udfff"])
def test_nul_and_unpaired_surrogates_cannot_be_stored(text: str) -> None:
    assert not is_storable(text)
    assert is_storable(replace_unprintable(text))


@pytest.mark.parametrize(
    "text",
    ["localtime", "posixrules", "Factory", "posix/Europe/Berlin", "right/Europe/Berlin", "europe/berlin",
     "Europe/Berlin ", " Europe/Berlin", "Europe", "", "../zoneinfo/UTC", "/usr/share/zoneinfo/UTC", "UTC\x00",
     "leapseconds", "tzdata.zi",
     "+01:00", 5, None, ["UTC"]],
)  # fmt: skip
def test_other_names_are_not_zones(text: object) -> None:
    with pytest.raises(ValueError, match="time zone"):
        validate_zone(text)


@pytest.mark.parametrize("text", ["UTC", "America/New_York", "Europe/Berlin", "Etc/GMT+5", "US/Eastern"])
def test_iana_names_are_zones(text: str) -> None:
    assert validate_zone(text) == text
