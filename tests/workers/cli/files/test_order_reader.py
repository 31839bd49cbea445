"""Tests of `import-orders`: BrickLink's order download and the API's orders become a history that can be played."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.plugins.market import Market
from workers.cli import group
from workers.show_queries import parse_query

DOWNLOAD = """<?xml version="1.0" encoding="UTF-8"?>
<ORDERS>
 <ORDER>
  <ORDERID>1001</ORDERID><ORDERDATE>8/6/2026</ORDERDATE><ORDERSTATUSCHANGED>8/7/2026</ORDERSTATUSCHANGED>
  <BUYER>ann</BUYER><ORDERSHIPPING>6.24</ORDERSHIPPING><ORDERADDCHRG1>2.42</ORDERADDCHRG1><ORDERCREDIT>1.00</ORDERCREDIT>
  <ORDERCREDITCOUPON>0.50</ORDERCREDITCOUPON><ORDERTOTAL>1,001.53</ORDERTOTAL><BASECURRENCYCODE>EUR</BASECURRENCYCODE>
  <BASEGRANDTOTAL>10.19</BASEGRANDTOTAL><ORDERLOTS>3</ORDERLOTS><ORDERITEMS>1,004</ORDERITEMS>
  <ORDERSTATUS>Packed</ORDERSTATUS>
  <ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>3001</ITEMID><COLOR>5</COLOR><QTY>1,000</QTY><PRICE>1.0000</PRICE><CONDITION>N</CONDITION>
   <LOTID>501</LOTID><REMARKS>Box 7</REMARKS></ITEM>
  <ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>3001</ITEMID><COLOR>5</COLOR><QTY>3</QTY><PRICE>0.2600</PRICE><CONDITION>N</CONDITION>
   <LOTID>501</LOTID></ITEM>
  <ITEM><ITEMTYPE>S</ITEMTYPE><ITEMID>6080-1</ITEMID><QTY>1</QTY><PRICE>0.7500</PRICE><CONDITION>U</CONDITION>
   <SUBCONDITION>I</SUBCONDITION></ITEM>
 </ORDER>
 <ORDER>
  <ORDERID>1002</ORDERID><ORDERDATE>8/7/2026</ORDERDATE><BUYER>bob</BUYER><ORDERTOTAL>2.00</ORDERTOTAL>
  <ORDERSTATUS>Cancelled</ORDERSTATUS>
 </ORDER>
 <ORDER>
  <ORDERID>1003</ORDERID><ORDERDATE>8/5/2026</ORDERDATE><BUYER>bob</BUYER><ORDERTOTAL>2.00</ORDERTOTAL>
  <BASECURRENCYCODE>USD</BASECURRENCYCODE><ORDERSTATUS>Received</ORDERSTATUS>
  <ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>3002</ITEMID><COLOR>5</COLOR><QTY>2</QTY><PRICE>1.0000</PRICE><CONDITION>N</CONDITION>
   <LOTID>502</LOTID></ITEM>
 </ORDER>
</ORDERS>
"""
API: dict[str, Any] = {
    "order_id": 1001,
    "date_ordered": "2026-08-06T10:00:00.000Z",
    "date_status_changed": "2026-08-07T10:00:00.000Z",
    "buyer_name": "ann",
    "buyer_email": "ann@example.org",
    "status": "PAID",
    "total_count": 12,
    "unique_count": 1,
    "payment": {"status": "Received"},
    "cost": {"currency_code": "USD", "subtotal": "10.8000", "credit": "0.0000", "coupon": "1.0000"},
    "items": [
        [
            {
                "inventory_id": 501,
                "item": {"no": "3001", "name": "Brick", "type": "PART", "category_id": 5},
                "color_id": 5,
                "quantity": 12,
                "new_or_used": "N",
                "unit_price": "1.0000",
                "unit_price_final": "0.9000",
                "remarks": "A &amp; B",
            }
        ]
    ],
}


def convert(path: Path, content: str, *options: str) -> tuple[Result, list[dict[str, Any]]]:
    """Runs the command on a file that was written on 1 September 2026."""
    path.write_text(content)
    written = datetime(2026, 9, 1, tzinfo=UTC).timestamp()
    os.utime(path, (written, written))
    result = CliRunner().invoke(group, ["import-orders", str(path), "--seller", "store", *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_download_becomes_facts_in_order_of_time(tmp_path: Path) -> None:
    """Dates have no time: the end of BrickLink's day, so that no period ends too early."""
    result, lines = convert(tmp_path / "orders.xml", DOWNLOAD, "--usd-rate", "EUR=1.0842")
    assert result.exit_code == 0, result.stderr
    assert "1 cancelled order left out" in " ".join(result.stderr.split())
    assert [(line["at"], line["task"]) for line in lines] == [
        ("2026-08-06T03:59:59Z", "members.record"),
        ("2026-08-06T03:59:59Z", "members.record"),
        ("2026-08-06T03:59:59Z", "members.record"),
        ("2026-08-06T03:59:59Z", "inventory.record_lot"),
        ("2026-08-06T03:59:59Z", "orders.submit"),
        ("2026-08-06T03:59:59Z", "orders.record_payment"),
        ("2026-08-06T03:59:59Z", "orders.set_status"),
        ("2026-08-06T03:59:59Z", "orders.set_status"),
        ("2026-08-07T03:59:59Z", "inventory.record_lot"),
        ("2026-08-07T03:59:59Z", "inventory.record_lot"),
        ("2026-08-07T03:59:59Z", "orders.submit"),
        ("2026-08-07T03:59:59Z", "inventory.record_lot"),
        ("2026-08-07T03:59:59Z", "orders.add_batch"),
        ("2026-08-08T03:59:59Z", "orders.set_status"),
    ]
    submit = next(line["kwargs"] for line in lines if line["kwargs"].get("order_id") == 1001)
    assert (submit["currency"], submit["usd_rate"], submit["credit"], submit["coupon"]) == (
        "EUR",
        "1.0842",
        "1.0000",
        "0.5000",
    )


@pytest.mark.parametrize("shape", ["xml", "json"])
def test_the_facts_can_be_played_and_the_totals_are_those_of_the_file(
    market: Market, tmp_path: Path, shape: str
) -> None:
    """The credit and the coupon are kept on the order, and the fee is of the goods before them."""
    content = DOWNLOAD if shape == "xml" else json.dumps([API])
    _, lines = convert(tmp_path / "orders", content, "--usd-rate", "EUR=1.0000")
    simulation = market.simulation
    simulation.clock.instant = datetime(2026, 8, 1, tzinfo=UTC)
    for line in lines:
        simulation.clock.instant = datetime.fromisoformat(line["at"])
        market.done(line["task"], **line["kwargs"])
    total, fee, credit, coupon, status = {
        "xml": ("1001.53", "25.02", "1", "0.5", "PACKED"),
        "json": ("10.80", "0.32", "0", "1", "PAID"),
    }[shape]
    row = market.stored_order(1001)
    assert (f"{row.total:.2f}", str(row.fee), row.status) == (total, fee, status)
    assert (row.credit, row.coupon) == (Decimal(credit), Decimal(coupon))
    with simulation.database.transaction() as conn:
        shown = parse_query(["order", 1001]).read(conn, simulation.clock.instant)
    assert (float(shown["credit"]), float(shown["coupon"])) == (float(credit), float(coupon))


def test_the_api_s_answer_is_read_with_its_envelope(tmp_path: Path) -> None:
    answer = {"meta": {"code": 200}, "data": API | {"items": {"meta": {}, "data": API["items"]}}}
    result, lines = convert(tmp_path / "order.json", json.dumps(answer))
    assert result.exit_code == 0, result.stderr
    lot = next(line["kwargs"]["lot"] for line in lines if line["task"] == "inventory.record_lot")
    assert (lot["unit_price"], lot["quantity"], lot["remarks"]) == ("0.9000", 12, "A & B")
    emails = [line["kwargs"]["email"] for line in lines if line["task"] == "members.record"]
    assert emails == ["store@unknown.invalid", "ann@example.org"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("<ORDERTOTAL>1,001.53<", "<ORDERTOTAL>1,001.54<", "ORDERTOTAL is 1,001.54, and the items come to 1001.53"),
        ("<ORDERLOTS>3<", "<ORDERLOTS>4<", "ORDERLOTS is 4, and the file has 3"),
        ("<ORDERITEMS>1,004<", "<ORDERITEMS>7<", "ORDERITEMS is 7, and the file has 1004"),
        ("<ORDERSTATUS>Packed<", "<ORDERSTATUS>NPB<", "the order is NPB, and the file does not say who filed what"),
        ("<ORDERSTATUS>Packed<", "<ORDERSTATUS>Lost<", "ORDERSTATUS LOST is none of BrickLink's"),
        ("<ORDERID>1001<", "<ORDERID>1003<", "the order is also order 1003 (line 3)"),
        ("<ORDERDATE>8/6/2026<", "<ORDERDATE>30/6/2026<", "ORDERDATE must be a date of the format mdy"),
        ("<BUYER>ann<", "<SELLER>ann</SELLER><BUYER><", "BUYER is missing"),
        ("<CONDITION>N</CONDITION>\n   <LOTID>501", "<LOTID>501", "item 1: CONDITION is missing"),
        ("<PRICE>1.0000<", "<PRICE>0<", "item 1: QTY and PRICE must be above zero"),
        ("<LOTID>501<", "<LOTID>abc<", "item 1: LOTID must be a whole number"),
        ("<BASECURRENCYCODE>EUR<", "<BASECURRENCYCODE>GBP<", "it is in GBP; add --usd-rate GBP=RATE"),
    ],
)
def test_an_order_that_cannot_be_imported_is_named_and_nothing_is_written(
    tmp_path: Path, old: str, new: str, why: str
) -> None:
    assert old in DOWNLOAD
    result, lines = convert(tmp_path / "orders.xml", DOWNLOAD.replace(old, new, 1), "--usd-rate", "EUR=1.0842")
    assert (result.exit_code, lines) == (1, [])
    assert why in result.stderr
    assert "1 order cannot be imported; nothing was written." in result.stderr
    result, lines = convert(
        tmp_path / "orders.xml", DOWNLOAD.replace(old, new, 1), "--usd-rate", "EUR=1.0842", "--skip-invalid"
    )
    assert (result.exit_code, sum(line["task"] == "orders.submit" for line in lines)) == (0, 1)


def test_a_bare_ampersand_is_read_as_one_and_counted(tmp_path: Path) -> None:
    """BrickLink's downloads have them."""
    content = DOWNLOAD.replace("Box 7", "Box & lid")
    result, lines = convert(tmp_path / "orders.xml", content, "--usd-rate", "EUR=1")
    assert result.exit_code == 0, result.stderr
    assert "orders.xml: 1 bare & read as &amp; (first on line 10)." in result.stderr
    remarks = [line["kwargs"]["lot"].get("remarks") for line in lines if line["task"] == "inventory.record_lot"]
    assert "Box & lid" in remarks


def test_each_order_that_is_left_out_is_listed(tmp_path: Path) -> None:
    orders = "".join(f"<ORDER><ORDERID>{n}</ORDERID><BUYER/></ORDER>" for n in range(1, 31))
    result, _ = convert(tmp_path / "orders.xml", f"<ORDERS>{orders}</ORDERS>")
    assert (result.stderr.count("BUYER is missing"), "10 more" in result.stderr) == (20, True)
    result, _ = convert(tmp_path / "orders.xml", f"<ORDERS>{orders}</ORDERS>", "--skip-invalid")
    assert result.stderr.count("BUYER is missing") == 30


def test_dates_of_another_order_are_read_on_request(tmp_path: Path) -> None:
    content = DOWNLOAD.replace("8/6/2026", "30/6/2026")
    assert convert(tmp_path / "orders.xml", content, "--usd-rate", "EUR=1", "--dates", "dmy")[0].exit_code == 0


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("<INVENTORY><ITEM/></INVENTORY>", "an inventory, not an order download"),
        ('[{"inventory_id": 5}]', "lots, not orders"),
        ("", "The file is empty"),
        ("Order,Buyer\n1,ann\n", "a table (CSV)"),
        ("<ORDERS><ORDER><BUYER>a</ORDER></ORDERS>", "not well-formed XML"),
    ],
)
def test_another_document_is_called_what_it_is(tmp_path: Path, content: str, what: str) -> None:
    result, _ = convert(tmp_path / "orders.xml", content)
    assert (result.exit_code, what in result.stderr) == (1, True)
