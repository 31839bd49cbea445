"""Tests of reading lots in JSON: the API's inventory, and what `show lots --json` prints. No database."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from policies.lots import Lot
from tests.workers.cli.files.samples import FIRST, SECOND, opened, read, why_not

API = {
    "inventory_id": 50592684,
    "item": {"no": "bel004", "name": "Sprue", "type": "PART", "categoryID": 48},
    "color_id": 5,
    "color_name": "Red",
    "quantity": 12,
    "new_or_used": "U",
    "unit_price": "1.2000",
    "bind_id": 7,
    "description": "&#40;light &amp;amp; dark&#41;",
    "remarks": "",
    "bulk": 1,
    "is_retain": False,
    "is_stock_room": True,
    "stock_room_id": "B",
    "date_created": "2013-12-18T05:00:00.000Z",
    "sale_rate": 10,
    "my_cost": "1.0000",
    "tier_quantity1": 10,
    "tier_price1": "1.0000",
    "tier_quantity2": 20,
    "tier_price2": "0.8000",
    "tier_quantity3": 0,
    "tier_price3": "0.0000",
}


@pytest.mark.parametrize("content", [{"meta": {"code": 200}, "data": [API]}, {"data": API, "meta": {}}, [API], API])
def test_the_api_s_inventory_response_is_read(content: object) -> None:
    """Its field names; entities of HTML are decoded once; dates and names of the catalogue are ignored."""
    file, entries, bad = opened(json.dumps(content))
    assert (bad, file.unread) == ([], {})
    lot = entries[0].as_new_lot("s", 50592684)
    assert lot == Lot(
        50592684, "s", "PART", "bel004", 5, 12, "U", Decimal("1.2000"), bind_id=7, description="(light &amp; dark)",
        is_stock_room=True, stock_room_id="B", sale_rate=10, my_cost=Decimal("1.0000"),
        tiers=((10, Decimal("1.0000")), (20, Decimal("0.8000"))),
    )  # fmt: skip


def test_the_json_of_show_is_read_and_its_texts_have_no_entities() -> None:
    lot = replace(FIRST, description="&amp; stays")
    assert read(json.dumps([lot.snapshot(), replace(SECOND, lot_id=5).snapshot()])) == [lot, replace(SECOND, lot_id=5)]
    _, _, bad = opened(json.dumps([lot.snapshot() | {"seller_id": "other"}]))
    assert "it belongs to another seller" in str(bad[0])
    _, _, bad = opened(json.dumps([lot.snapshot() | {"remarks": "\ud800"}]))
    assert "cannot be stored" in str(bad[0])


@pytest.mark.parametrize(
    "broken",
    [
        "[",
        "[1]",
        '{"meta": {}}',
        '{"meta": {}, "data": 7}',
        "[{}",
        "[{} {}]",
        "{}x",
        '[{"a": 1e}]',
        '[{"a": ' + "[" * 100_000,
        '[{"remarks": "a", "remarks": "b"}]',
    ],
)
def test_broken_json_is_refused(broken: str) -> None:
    assert why_not(broken)


def test_a_value_that_is_no_text_is_invalid_and_reported_where_it_is_not_read() -> None:
    lot = FIRST.snapshot()
    file, _, bad = opened(json.dumps([lot | {"remarks": ["a"]}, lot | {"lot_id": 2, "item": "3001"}]))
    assert ["remarks has other elements" in str(bad[0]), "item must be an object" in str(bad[1])] == [True, True]
    file, _, bad = opened(json.dumps([lot | {"tags": {"a": 1}}]))
    assert (bad, list(file.unread)) == ([], ["tags"])


def test_long_json_is_read_one_object_at_a_time() -> None:
    """The buffer holds one chunk and one object, however long the file is."""
    lots = [API | {"inventory_id": number, "description": "x" * 1000} for number in range(1, 2000)]
    _, entries, _ = opened(json.dumps(lots))
    assert [entry.lot_id for entry in entries] == list(range(1, 2000))
