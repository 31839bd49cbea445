"""Tests of `import-lots` on a database: what becomes of known lots, and of files that are imported twice."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from policies.lots import FIRST_UNWIND_LOT_ID
from tasks.lot_imports import import_entries
from tests.plugins.market import Market
from tests.workers.cli.lot_imports import Run, inventory_of, part, show, stock
from workers.cli import import_lots as lots_command


def test_lots_become_a_file_and_the_file_changes_nothing(market: Market, run_import: Run) -> None:
    """Custom items, superlot parts and everything that `record_lot` takes, through XML and through JSON."""
    market.lot(1, bind_id=77, my_weight="2.5000", description="a\r\nb\x01 ", remarks=" x", sale_rate=5)
    market.lot(2, item={"no": "", "type": "PART"}, description="Handmade sign")
    market.lot(3, is_stock_room=True, is_retain=True, quantity=0)
    market.lot(4, item={"no": "6346-1", "type": "SET"}, completeness="B", my_cost="0.0000", reserved_for="buyer")
    before = stock(market)
    for shape in ("--xml", "--json"):
        assert run_import(show(shape)) == (0, "0 lots imported, 0 updated, 4 unchanged: 300 units of seller.\n")
        assert stock(market) == before


def test_an_incomplete_set_of_bricksync_does_not_merge_into_the_complete_lot(market: Market, run_import: Run) -> None:
    code, output = run_import("bricksync_sets.bsx")
    assert (code, output) == (0, "2 lots imported, 0 updated: 5 units of seller.\n")
    market.order(1, [(7001, 3)])
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    assert [(x.lot_id, x.completeness, x.quantity, x.my_cost) for x in stock(market)] == [
        (7002, "C", 2, None),
        (FIRST_UNWIND_LOT_ID, "B", 3, Decimal("21.5000")),
    ]


def test_a_superlot_part_stays_one_and_takes_nothing_back(market: Market, run_import: Run) -> None:
    market.lot(501, bind_id=77)
    market.order(1, [(market.lot(502), 100)])
    assert run_import(show("--xml"))[0] == 0
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    assert [(x.lot_id, x.bind_id, x.quantity) for x in stock(market)] == [(501, 77, 100), (FIRST_UNWIND_LOT_ID, 0, 100)]


def test_a_brickstore_file_keeps_the_weight_of_a_known_lot(market: Market, run_import: Run) -> None:
    market.lot(8001, my_weight="2.5000", bind_id=7, remarks="Box 7")
    code, output = run_import("stockroom_and_retain.bsx")
    assert (code, output) == (0, "1 lot imported, 1 updated: 20 units of seller.\n")
    first, second = stock(market)
    assert (first.my_weight, first.bind_id, first.stock_room_id, first.remarks) == (Decimal("2.5000"), 7, "A", "")
    assert (first.quantity, second.lot_id, second.is_retain) == (10, 8002, False)


def test_what_a_bricklink_file_does_not_say_stays_as_it_is(market: Market, run_import: Run) -> None:
    market.lot(5, remarks="Box 7", is_retain=True, tier_quantity1=10, tier_price1="0.4000")
    assert run_import(inventory_of(part("<LOTID>5</LOTID><DESCRIPTION>new</DESCRIPTION>")))[0] == 0
    (lot,) = stock(market)
    assert (lot.remarks, lot.is_retain, lot.description, lot.quantity, len(lot.tiers)) == ("Box 7", True, "new", 10, 1)
    assert run_import(inventory_of(part("<LOTID>5</LOTID><REMARKS/><RETAIN>N</RETAIN><TQ1>0</TQ1>")))[0] == 0
    (lot,) = stock(market)
    assert (lot.remarks, lot.is_retain, lot.description, lot.tiers) == ("", False, "new", ())


def test_a_mass_update_is_refused_by_its_name_and_carried_out_on_request(market: Market, run_import: Run) -> None:
    market.lot(8001, quantity=10)
    market.lot(8002, color_id=6)
    code, output = run_import("mass_update.xml")
    assert (code, "mass_update.xml is a mass-update file: item 1 (line 2, lot 8001)" in output) == (1, True)
    assert "Use --update" in output
    assert [lot.quantity for lot in stock(market)] == [10, 100]
    code, output = run_import("mass_update.xml", "--update")
    assert (code, output) == (0, "0 lots imported, 1 updated, 1 deleted: 7 units of seller.\n")
    assert [(lot.lot_id, lot.quantity) for lot in stock(market)] == [(8001, 7)]


def test_delete_is_refused_by_its_name_and_deletes_on_request(market: Market, run_import: Run) -> None:
    market.lot(8002)
    assert "is a mass-update file: item 1 (line 2, lot 8002)" in run_import("delete_flag.xml")[1]
    assert len(stock(market)) == 1
    assert run_import("delete_flag.xml", "--update")[0] == 0
    assert stock(market) == []


def test_an_update_is_what_bricklink_makes_of_it(market: Market, run_import: Run) -> None:
    """Values that are not said stay, none may be sold out by it, and what it names must be there."""
    market.lot(5, remarks="Box 7", tier_quantity1=10, tier_price1="0.4000")
    market.lot(6, seller_id="other_seller")
    items = (
        "<ITEM><LOTID>5</LOTID><PRICE>0.9</PRICE><TP1>0.3</TP1></ITEM>",
        "<ITEM><LOTID>7</LOTID><QTY>+1</QTY></ITEM>",
        "<ITEM><LOTID>6</LOTID><DELETE>Y</DELETE></ITEM>",
    )
    code, output = run_import(inventory_of(*items), "--update")
    assert code == 1
    assert "item 2 (line 1, lot 7): the store has no lot 7" in output
    assert "item 3 (line 1, lot 6): Lot 6 belongs to another seller." in output
    code, output = run_import(inventory_of(*items), "--update", "--skip-invalid")
    assert (code, output.splitlines()[-1]) == (0, "0 lots imported, 1 updated, 2 skipped: 100 units of seller.")
    (lot,) = stock(market)
    assert (lot.unit_price, lot.tiers, lot.remarks) == (Decimal("0.9000"), ((10, Decimal("0.3000")),), "Box 7")
    code, output = run_import(inventory_of("<ITEM><LOTID>5</LOTID><QTY>-100</QTY></ITEM>"), "--update")
    assert (code, "the lot has 100 units, and -100 would leave none" in output) == (1, True)
    code, output = run_import(
        inventory_of("<ITEM><LOTID>5</LOTID><ITEMTYPE>S</ITEMTYPE><QTY>+1</QTY></ITEM>"), "--update"
    )
    assert (code, "lot 5 is PART 3001 in colour 5, and the file says item_type SET" in output) == (1, True)


def test_importing_twice_is_refused_with_the_count_and_the_ways(market: Market, run_import: Run) -> None:
    assert run_import("no_lot_numbers.bsx")[0] == 0
    before = stock(market)
    code, output = run_import("no_lot_numbers.bsx")
    assert code == 1
    assert "1 item without a known lot number is in the store already, 1 of them with the same values" in output
    assert f"item 1 (line 3, PART 3001) is lot {FIRST_UNWIND_LOT_ID}" in output
    assert all(f"--as {way}" in output for way in ("new", "consolidate", "replace", "update"))
    assert stock(market) == before


@pytest.mark.parametrize(
    ("way", "lots", "units", "price"),
    [
        ("new", 2, 20, "1.0000"),
        ("consolidate", 1, 20, "1.0000"),
        ("replace", 1, 10, "0.5000"),
        ("update", 1, 7, "0.5000"),
    ],
)
def test_the_ways_to_import_what_the_store_has(
    market: Market, run_import: Run, way: str, lots: int, units: int, price: str
) -> None:
    market.lot(501, quantity=10 if way != "update" else 7)
    assert run_import(inventory_of(part()), "--as", way)[0] == 0
    after = stock(market)
    assert (len(after), sum(lot.quantity for lot in after), after[0].unit_price) == (lots, units, Decimal(price))


def test_importing_twice_to_replace_changes_nothing_the_second_time(market: Market, run_import: Run) -> None:
    """Equal items are matched one to one, those with equal values first; custom items by all their values."""
    custom = part("<DESCRIPTION>Sign</DESCRIPTION>", item="")
    file = inventory_of(part("<REMARKS>A</REMARKS>"), part("<REMARKS>B</REMARKS>"), custom, part(item="3002"))
    assert run_import(file)[0] == 0
    before = stock(market)
    assert len(before) == 4
    shuffled = inventory_of(part("<REMARKS>B</REMARKS>"), custom, part("<REMARKS>A</REMARKS>"), part(item="3002"))
    code, output = run_import(shuffled, "--as", "replace")
    assert (code, output) == (0, "0 lots imported, 0 updated, 4 unchanged: 40 units of seller.\n")
    assert stock(market) == before
    other = inventory_of(part("<DESCRIPTION>Another sign</DESCRIPTION>", item=""))
    assert run_import(other)[1] == "1 lot imported, 0 updated: 10 units of seller.\n"


def test_nothing_is_added_to_superlots_and_reserved_lots(market: Market, run_import: Run) -> None:
    market.lot(1, bind_id=7)
    market.lot(2, reserved_for="buyer")
    market.lot(3, is_stock_room=True, stock_room_id="B")
    market.lot(4, unit_price="3.0000")
    assert run_import(inventory_of(part()), "--as", "consolidate")[0] == 0
    assert [lot.quantity for lot in stock(market)] == [100, 100, 100, 110]


def test_a_number_of_another_installation_means_no_lot_here(market: Market, run_import: Run) -> None:
    """The number belongs to the next return here; the same item with that number is that lot."""
    foreign = inventory_of(part(f"<LOTID>{FIRST_UNWIND_LOT_ID + 1}</LOTID>"), part(item="3002"))
    assert run_import(foreign)[0] == 0
    assert [lot.lot_id for lot in stock(market)] == [FIRST_UNWIND_LOT_ID, FIRST_UNWIND_LOT_ID + 1]
    code, output = run_import(foreign)
    assert (code, "2 items without a known lot number are in the store already" in output) == (1, True)
    same = inventory_of(part(f"<LOTID>{FIRST_UNWIND_LOT_ID}</LOTID>", quantity=4))
    assert run_import(same)[1] == "0 lots imported, 1 updated: 4 units of seller.\n"


def test_a_dry_run_shows_what_would_happen_and_changes_nothing(market: Market, run_import: Run) -> None:
    market.lot(501, quantity=10)
    market.lot(502, item={"no": "3002", "type": "PART"})
    before = stock(market)
    file = inventory_of(
        part("<LOTID>501</LOTID>", quantity=7), part(item="3002"), part(item="3003"), part(item="3004", quantity=-1)
    )
    code, output = run_import(file.replace("<QTY>-1</QTY>", "<QTY>x</QTY>"), "--dry-run")
    assert code == 1
    rows = [line.split() for line in output.splitlines()]
    assert "1 501 updated PART 3001 10 → 7 quantity 10 → 7," in " ".join(output.split())
    assert ["2", "502", "exists", "PART", "3002", "10"] in rows
    assert ["3", "new", "PART", "3003", "10"] in rows
    assert "item 4 (line 1, PART 3004): QTY must be a whole number." in output
    code, output = run_import(inventory_of(part(item="3003")), "--dry-run")
    assert (code, output.splitlines()[-1]) == (0, "1 lot would be imported, 0 updated: 10 units of seller.")
    assert stock(market) == before


def test_nothing_is_imported_when_an_item_is_no_lot_and_the_others_are_on_request(
    market: Market, run_import: Run
) -> None:
    file = inventory_of(part(), part(item="3002", quantity=10).replace("<QTY>10</QTY>", "<QTY>one</QTY>"))
    code, output = run_import(file)
    assert code == 1
    assert "store.xml: item 2 (line 1, PART 3002): QTY must be a whole number." in output
    assert "1 of 2 items is not a valid lot; nothing was imported. --skip-invalid imports the others." in output
    assert stock(market) == []
    code, output = run_import(file, "--skip-invalid")
    assert (code, output.splitlines()[-1]) == (0, "1 lot imported, 0 updated, 1 skipped: 10 units of seller.")


def test_duplicate_lots_and_parts_without_a_colour_block_the_import(market: Market, run_import: Run) -> None:
    code, output = run_import("part_without_colour.xml")
    assert code == 1
    assert "item 1 (line 2, lot 8401, PART 3001): COLOR is missing" in output
    assert "item 3 (line 4, lot 8402, PART 3002): lot 8402 is also item 2 (line 3)" in output
    assert run_import("part_without_colour.xml", "--skip-invalid")[0] == 0
    assert [(lot.lot_id, lot.item_no, lot.quantity) for lot in stock(market)] == [(8402, "3001", 5)]


def test_bricklink_s_sample_of_an_upload_is_imported(market: Market, run_import: Run) -> None:
    code, output = run_import("custom_item.xml")
    assert (code, output.splitlines()[0]) == (0, "2 lots imported, 0 updated: 56 units of seller.")
    assert "CATEGORY of 1 item was not read (first: item 2 (line 3, PART)): a lot has no field" in output
    assert [(lot.item_no, lot.description) for lot in stock(market)] == [("3622", ""), ("", "Handmade sign")]
    code, output = run_import("custom_item.xml")
    assert (code, "2 items without a known lot number are in the store already" in output) == (1, True)


def test_what_was_repaired_left_out_and_not_read_is_reported(market: Market, run_import: Run) -> None:
    code, output = run_import("bare_ampersand.xml")
    assert (code, output.splitlines()) == (
        0,
        [
            "1 lot imported, 0 updated: 1 unit of seller.",
            "bare_ampersand.xml: 1 bare & read as &amp; (first on line 2).",
        ],
    )
    output = run_import(inventory_of(part("<GRADE>7</GRADE>")), "--as", "new")[1]
    assert "GRADE of 1 item was not read (first: item 1 (line 1, PART 3001)): no field of a lot is known" in output


def test_the_api_s_json_is_imported(market: Market, run_import: Run) -> None:
    lot = {"inventory_id": 9, "item": {"no": "3001", "type": "PART"}, "color_id": 5, "quantity": 4, "new_or_used": "N",
           "unit_price": "1.0000", "remarks": "A &amp; B", "date_created": "2013-12-18T05:00:00.000Z"}  # fmt: skip
    assert run_import(json.dumps([lot]))[0] == 0
    assert [(x.lot_id, x.remarks) for x in stock(market)] == [(9, "A & B")]


@pytest.mark.parametrize("way", ["new", "consolidate", "replace", "update"])
def test_an_item_without_a_number_is_never_a_lot_that_the_file_names(market: Market, run_import: Run, way: str) -> None:
    """Else one of the two would overwrite the other, whichever stands first."""
    market.lot(501, quantity=3)
    named, unnamed = part("<LOTID>501</LOTID>", quantity=10), part(quantity=5)
    for items in ((named, unnamed), (unnamed, named)):
        assert run_import(inventory_of(*items), "--as", way)[0] == 0
        assert [lot.quantity for lot in stock(market)] == [10, 5]
        market.done("inventory.delete_lot", lot_id=stock(market)[1].lot_id, seller_id="seller")


def test_each_pass_says_how_far_it_is(market: Market, run_import: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots_command, "LOTS_PER_PROGRESS_LINE", 2)
    monkeypatch.setattr(lots_command, "LOTS_PER_IMPORT_TRANSACTION", 3)
    output = run_import(inventory_of(*(part(item=f"{n}") for n in range(5))))[1]
    assert output.splitlines()[:-1] == [
        f"{count} lots {done}." for done in ("read", "checked", "imported") for count in (2, 4)
    ]


def test_each_item_that_is_skipped_is_listed(market: Market, run_import: Run) -> None:
    file = inventory_of(part(), *(part(f"<BULK>x{n}</BULK>") for n in range(30)))
    output = run_import(file)[1]
    assert (output.count("BULK must be"), "(10 more not shown)" in output) == (20, True)
    output = run_import(file, "--skip-invalid")[1]
    assert (output.count("BULK must be"), "1 lot imported, 0 updated, 30 skipped" in output) == (30, True)


def test_another_sellers_lot_stops_an_import_before_anything_is_written(
    market: Market, run_import: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lot never moves to another seller, and what stands before it in the file is not imported."""
    monkeypatch.setattr(lots_command, "LOTS_PER_IMPORT_TRANSACTION", 1)
    market.lot(77, seller_id="other_seller")
    code, output = run_import(inventory_of(part(), part("<LOTID>77</LOTID>")))
    assert (code, "item 2 (line 1, lot 77, PART 3001): Lot 77 belongs to another seller." in output) == (1, True)
    assert stock(market) == []


def test_an_unknown_seller_is_named(market: Market, run_import: Run) -> None:
    assert run_import("custom_item.xml", "--seller", "nobody") == (1, "Error: There is no seller nobody.\n")


def test_a_lot_that_is_sold_between_check_and_import_is_not_made_again(
    market: Market, run_import: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.lot(501)

    def sell_first(*arguments: object, write: bool) -> object:
        if write:
            market.order(1, [(501, 100)])
        return import_entries(*arguments, write=write)  # type: ignore[arg-type]

    monkeypatch.setattr(lots_command, "import_entries", sell_first)
    code, output = run_import(inventory_of(part()), "--as", "replace")
    assert (code, "the store has no lot 501" in output) == (1, True)
    assert stock(market) == []
    market.lot(501)
    market.lot(502, item={"no": "3002", "type": "PART"})
    sold: list[int] = []

    def sell_once(*arguments: object, write: bool) -> object:
        if write and not sold:
            sold.append(market.order(2, [(501, 100)]))
        return import_entries(*arguments, write=write)  # type: ignore[arg-type]

    monkeypatch.setattr(lots_command, "import_entries", sell_once)
    code, output = run_import(inventory_of(part(), part(item="3002")), "--as", "replace", "--skip-invalid")
    assert (code, output.splitlines()[-1]) == (0, "0 lots imported, 1 updated, 1 skipped: 10 units of seller.")
    assert [(lot.lot_id, lot.quantity) for lot in stock(market)] == [(502, 10)]
