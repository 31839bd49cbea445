"""Fuzz tests: files and command-line arguments end in a result or an error message, never in a traceback.

Hypothesis makes the bytes: broken ones, and good ones with a piece exchanged, which come further.
"""

from __future__ import annotations

import io
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from policies.lots import Lot
from policies.term_parsing import terms_from_mapping, terms_to_mapping
from policies.terms import Terms
from tests.plugins.market import Market
from workers.cli import group
from workers.cli.files.lot_elements import FIELD_OF_ELEMENT
from workers.cli.files.lot_reader import LotFile
from workers.cli.files.lot_writer import write_store
from workers.cli.files.xml_records import UnreadableFile

FIELDS = sorted({*FIELD_OF_ELEMENT, "CATEGORY", "DELETE", "GRADE"})
ODD = some.one_of(
    some.text(max_size=30),
    some.sampled_from(
        ["", " ", "0", "-1", "1e999999999", "-0", "NaN", "sNaN", "Infinity", "9" * 40, "٣", "1_0", "1,7,5,2", "0.00004",
         "\u200b", "Y", "N", "U", "P", "X", "2147483648",
         "9223372036854775808", "a\u2028b", "0x10", "1.", ".5", "1E+3", "]]>", "&#0;", "&#xD800;"]
    ),
)  # fmt: skip
ITEM = {"ITEMTYPE": "P", "ITEMID": "3001", "COLOR": "5", "QTY": "10", "PRICE": "0.10", "CONDITION": "N"}
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(content: bytes) -> list[Lot] | None:
    """The lots of a file without problems; None if it is rejected with a message."""
    file = LotFile(io.BytesIO(content), "s")
    try:
        bad = list(file.inspect())
        entries = [entry for entry in file.entries() if not entry.is_update]
    except UnreadableFile:
        return None
    assert all(str(item) for item in bad)
    lots = [(entry, entry.as_new_lot("s", entry.lot_id)) for entry in entries]
    return [lot for entry, lot in lots if not entry.find_problems(lot, None)]


@given(some.binary(max_size=2000))
@FUZZ
def test_any_bytes_are_an_inventory_or_rejected(content: bytes) -> None:
    """Alone, and inside an inventory of either format."""
    read(content)
    read(b"<INVENTORY><ITEM>" + content + b"</ITEM></INVENTORY>")
    read(b"<BrickStoreXML><Inventory>" + content + b"</Inventory></BrickStoreXML>")
    read(b"[" + content + b"]")
    read(b'<?xml version="1.0" encoding="' + content[:20] + b'"?><INVENTORY></INVENTORY>')


@given(some.dictionaries(some.sampled_from(FIELDS), ODD, max_size=8), some.binary(max_size=4), some.integers(0, 400))
@FUZZ
def test_any_item_is_a_lot_or_reported(fields: dict[str, str], piece: bytes, position: int) -> None:
    """Accepted lots survive writing and reading."""
    values = "".join(f"<{name}>{value}</{name}>" for name, value in (ITEM | fields).items())
    content = f"<INVENTORY><ITEM>{values}</ITEM></INVENTORY>".encode("utf-8", "surrogatepass")
    lots = read(content)
    if lots:
        assert read("".join(write_store(lots)).encode()) == lots
    read(content[:position] + piece + content[position + len(piece) :])


WORDS = some.sampled_from(sorted(terms_to_mapping(Terms())))
VALUES = some.recursive(
    some.one_of(
        some.none(),
        some.booleans(),
        some.integers(),
        some.floats(),
        ODD,
        some.sampled_from(["7d", "0.03", "UTC", "PAID"]),
    ),
    lambda inner: some.one_of(
        some.lists(inner, max_size=4),
        some.dictionaries(some.sampled_from(["up_to", "rate", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@given(some.dictionaries(some.one_of(WORDS, some.text(max_size=8)), VALUES, max_size=4))
@FUZZ
def test_any_terms_are_valid_or_reported_one_by_one(values: dict[str, Any]) -> None:
    """Accepted terms survive writing and reading."""
    items = terms_from_mapping(values)
    if isinstance(items, Terms):
        assert terms_from_mapping(terms_to_mapping(items)) == items
    else:
        assert items
        assert all(message for _, message in items)


@pytest.fixture
def typed(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., click.testing.Result]:
    """Types arguments at the command line of an installation with one order; the result must be a sentence."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    market.order(1003)

    def run(*words: str) -> click.testing.Result:
        result = CliRunner().invoke(group, list(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
        assert result.exit_code in (0, 1, 2), (words, result.output)
        return result

    return run


NOUNS = ("order", "explain", "lots", "bill", "member", "notices", "alerts", "request", "credits", "forecast", "sweeps")
ARGUMENT = some.one_of(
    ODD,
    some.text(alphabet=some.characters(exclude_characters="\x00"), max_size=20),
    some.text(string.printable, max_size=10),
    some.sampled_from(
        ["1003", "seller", "2026-03", "2026-13", "0000-01", "0001-01", "9999-12", "--at", "2026-04-01T00:00:00Z",
         "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "--order", "--due-before", "--days", "366", "367",
         "--xml", "--json", "--returned", "--html", "--", "-", "\udcff", "９", "1003\n"]
    ),
)  # fmt: skip


@given(some.sampled_from(["show", "explain"]), some.sampled_from(NOUNS), some.lists(ARGUMENT, max_size=4))
@settings(FUZZ, max_examples=80)
@example("show", "bill", ["seller", "9999-12"])
@example("show", "bill", ["seller", "0001-01"])
@example("show", "lots", ["\udcff"])
@example("show", "lots", ["\udcff", "--xml"])
@example("explain", "order", ["1003", "--at", "9999-12-31T23:59:59.999999Z"])
@example("show", "order", ["1003", "--at", "0001-01-01T00:00:00Z"])
def test_any_arguments_of_show_give_a_result_or_an_error_message(
    typed: Callable[..., click.testing.Result], command: str, noun: str, words: list[str]
) -> None:
    typed(command, noun, *words)


@given(some.sampled_from(["credits", "forecast", "audit", "events", "jobs"]), some.lists(ARGUMENT, max_size=3))
@settings(FUZZ, max_examples=40)
@example("audit", ["month", "9999-12"])
@example("audit", ["month", "0001-01"])
def test_any_arguments_of_other_commands_give_an_error_message(
    typed: Callable[..., click.testing.Result], command: str, words: list[str]
) -> None:
    if "--follow" not in words:
        typed(command, *words)


@given(
    some.one_of(
        some.binary(max_size=200), VALUES.map(lambda value: f"BILL_DAY = {value!r}".encode("utf-8", "replace"))
    ),
    ARGUMENT,
)
@settings(FUZZ, max_examples=40)
@example(b"BILL_DAY = 2027-01-01", "now")
@example(b"BILL_DAY = 5.5", "now")
@example(b"MINIMUM_BILL = nan", "now")
@example(b"X = " + b"[" * 5000, "now")
@example(b"BILL_DAY = 1" + b"0" * 5000, "now")
@example(b"BILL_DAY = 6", "0001-01-01")
@example(b"BILL_DAY = 6", "9999-12-31")
@example(b"BILL_DAY = 6", "2027-W01-1")
def test_any_terms_file_is_applied_or_gives_an_error_message(
    typed: Callable[..., click.testing.Result], tmp_path: Path, content: bytes, start: str
) -> None:
    file = tmp_path / "terms.toml"
    file.write_bytes(content)
    typed("terms", "apply", str(file), "--from", start)


@given(some.binary(max_size=200), ARGUMENT)
@settings(FUZZ, max_examples=40)
@example(b"<INVENTORY></INVENTORY>", "\udcff")
@example(b"<INVENTORY><ITEM/></INVENTORY>", "seller")
@example(b"<INVENTORY><ITEM><LOTID>5</LOTID><QTY>+3</QTY></ITEM></INVENTORY>", "seller")
@example(b'[{"item": [], "quantity": {}}]', "seller")
def test_any_lot_file_is_imported_or_gives_an_error_message(
    typed: Callable[..., click.testing.Result], tmp_path: Path, content: bytes, seller: str
) -> None:
    file = tmp_path / "lots.xml"
    file.write_bytes(content)
    typed("import-lots", str(file), "--seller", seller, "--skip-invalid")
    typed("import-lots", str(file), "--seller", seller, "--update", "--dry-run")
