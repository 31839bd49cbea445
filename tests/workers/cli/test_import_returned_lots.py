"""Tests of lots that came back: their file for BrickLink, and its download with BrickLink's numbers imported here."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from policies.lots import FIRST_UNWIND_LOT_ID
from tasks.lot_imports import import_entries
from tests.plugins.market import Market
from tests.workers.cli.lot_imports import Run, inventory_of, part, show, stock
from workers.cli import group
from workers.cli import import_lots as lots_command


def returned_lot(market: Market) -> str:
    """A lot that a return made, as BrickLink's mass upload takes it and its download has it later, as lot 777."""
    market.order(1, [(market.lot(501, remarks="Box 7"), 100)])
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    upload = show("--xml", "--returned")
    assert "<LOTID>" not in upload
    return upload.replace("<ITEM>", "<ITEM><LOTID>777</LOTID>")


def test_a_returned_lot_that_was_uploaded_does_not_count_twice(market: Market, run_import: Run) -> None:
    """BrickLink gives it a number of its own: nobody but the seller knows whether it is the same lot."""
    download = returned_lot(market)
    before = stock(market)
    code, output = run_import(download)
    assert (code, "1 item without a known lot number is in the store already, 1 of them with the same" in output) == (
        1,
        True,
    )
    assert f"lot 777, PART 3001) is lot {FIRST_UNWIND_LOT_ID}" in output
    assert stock(market) == before
    output = run_import(download, "--as", "replace", "--dry-run")[1]
    assert f"lot_id {FIRST_UNWIND_LOT_ID} → 777" in " ".join(output.split())
    assert stock(market) == before
    assert run_import(download, "--as", "replace")[1] == "0 lots imported, 1 updated: 100 units of seller.\n"
    assert [(lot.lot_id, lot.quantity, lot.remarks) for lot in stock(market)] == [(777, 100, "Box 7")]
    assert run_import(download) == (0, "0 lots imported, 0 updated, 1 unchanged: 100 units of seller.\n")


@pytest.mark.parametrize(
    ("way", "lots"),
    [
        ("new", [(777, 60), (FIRST_UNWIND_LOT_ID, 100)]),
        ("replace", [(777, 60)]),
        ("update", [(777, 100)]),
        ("consolidate", [(777, 160)]),
    ],
)
def test_the_ways_to_import_a_returned_lot_with_its_new_number(
    market: Market, run_import: Run, way: str, lots: list[tuple[int, int]]
) -> None:
    download = returned_lot(market).replace("<QTY>100<", "<QTY>60<")
    assert run_import(download, "--as", way)[0] == 0
    assert [(lot.lot_id, lot.quantity) for lot in stock(market)] == lots


def test_lots_without_numbers_get_those_of_a_later_download(market: Market, run_import: Run) -> None:
    """Each number goes to one lot; a lot for which there is none keeps the number that Unwind gave."""
    first = [part(item="3001"), part("<REMARKS>B</REMARKS>"), part(item="3002"), part(item="3003")]
    assert run_import(inventory_of(*first))[0] == 0
    later = [
        part("<LOTID>71</LOTID><REMARKS>B</REMARKS>"),
        part("<LOTID>72</LOTID>"),
        part("<LOTID>73</LOTID>", item="3002"),
    ]
    assert run_import(inventory_of(*later), "--as", "replace")[0] == 0
    assert [(lot.lot_id, lot.item_no, lot.remarks, lot.quantity) for lot in stock(market)] == [
        (71, "3001", "B", 10),
        (72, "3001", "", 10),
        (73, "3002", "", 10),
        (FIRST_UNWIND_LOT_ID + 3, "3003", "", 10),
    ]


def test_a_number_that_the_marketplace_records_during_the_import_is_refused(
    market: Market, run_import: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = returned_lot(market)

    def record_first(*arguments: object, write: bool) -> object:
        if write:
            market.lot(777)
        return import_entries(*arguments, write=write)  # type: ignore[arg-type]

    with monkeypatch.context() as patches:
        patches.setattr(lots_command, "import_entries", record_first)
        code, output = run_import(download, "--as", "replace")
    assert (code, "the store has a lot 777 since the check. Nothing was imported." in output) == (1, True)
    assert [lot.lot_id for lot in stock(market)] == [777, FIRST_UNWIND_LOT_ID]


def test_only_what_came_back_and_is_still_there_is_written_on_request(market: Market, run_import: Run) -> None:
    """Lots from which nothing was sold are left out, and so is what was sold again."""
    first, second = market.lot(501), market.lot(502, color_id=7)
    market.order(1, [(first, 10), (second, 100)])
    assert show("--xml", "--returned") == "<INVENTORY>\n</INVENTORY>\n"
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    returned = show("--xml", "--returned")
    assert "<LOTID>501</LOTID>" in returned
    assert returned.count("<ITEM>") == 2
    assert str(FIRST_UNWIND_LOT_ID) not in returned
    market.order(2, [(first, 95)])
    assert "<QTY>5</QTY>" in show("--xml", "--returned")
    assert show("--xml", "--returned", "--as-update") == (
        "<INVENTORY>\n <ITEM><LOTID>501</LOTID><QTY>+5</QTY></ITEM>\n</INVENTORY>\n"
    )
    result = CliRunner().invoke(group, ["show", "lots", "seller", "--xml", "--returned", "--as-update"])
    assert result.stderr == "1 lot is new to BrickLink and not in this file: upload it with --returned --new.\n"
    new = show("--xml", "--returned", "--new")
    assert (new.count("<ITEM>"), "<COLOR>7</COLOR>" in new) == (1, True)
    assert CliRunner().invoke(group, ["show", "lots", "seller", "--xml", "--returned"]).stderr == ""
    result = CliRunner().invoke(group, ["show", "lots", "nobody", "--xml"])
    assert (result.exit_code, result.output) == (1, "Error: There is no seller nobody.\n")


def test_the_upload_of_a_custom_item_says_that_its_category_is_missing(market: Market, run_import: Run) -> None:
    """BrickLink takes no custom item without it."""
    market.order(1, [(market.lot(501, item={"no": "", "type": "PART"}, description="Handmade sign"), 100)])
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    result = CliRunner().invoke(group, ["show", "lots", "seller", "--xml", "--returned"])
    assert "<ITEMID/>" in result.stdout
    assert result.stderr == "1 lot of custom items: add their CATEGORY, which Unwind does not keep.\n"
