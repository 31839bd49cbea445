"""The `import-orders` command: writes the orders of a file as the lines of a history for `replay`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import click

from policies.lots import format_price
from policies.statuses import PaymentStatus
from policies.texts import pluralize
from policies.timestamps import format_timestamp
from workers.cli.files.lot_elements import parse_amount_field
from workers.cli.files.order_reader import DATE_FORMATS, FileOrder, OrderFile
from workers.cli.files.xml_records import UnreadableFile
from workers.cli.terminal_text import echo, echo_literally

MAX_SHOWN = 20

DatedCommand = tuple[datetime, str, dict[str, Any]]


def _parse_exchange_rates(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, Decimal]:
    rates = {"USD": Decimal(1)}
    for value in values:
        currency, _, text = value.partition("=")
        rate = parse_amount_field(text)
        if len(currency) != 3 or not currency.isupper() or not rate:
            raise click.BadParameter("write it like EUR=1.0842")
        rates[currency] = Decimal(text)
    return rates


@click.command("import-orders")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seller", "seller_id", required=True, metavar="ID", help="The seller who received these orders.")
@click.option("--seller-email", default="", metavar="ADDRESS", help="The seller's address.")
@click.option(
    "--usd-rate",
    "usd_rates",
    multiple=True,
    metavar="EUR=1.0842",
    callback=_parse_exchange_rates,
    help="The price of one unit of a currency in US dollars; needed for each currency but USD.",
)
@click.option(
    "--dates", type=click.Choice(list(DATE_FORMATS)), default="mdy", show_default=True, help="Order of a date's parts."
)
@click.option("--skip-invalid", is_flag=True, help="Write the valid orders and list the others.")
def import_orders(
    file: Path, seller_id: str, seller_email: str, usd_rates: dict[str, Decimal], dates: str, skip_invalid: bool
) -> None:
    """Turn BrickLink's orders into a history that a new installation starts with.

    FILE is BrickLink's order download (XML, with details) or the API's orders (JSON), each with its items under
    "items". Prints one JSON object a line for `./run replay`. When an order cannot be imported, or its total is not
    the sum of its items, it is named and nothing is printed.
    """
    try:
        with file.open("rb") as opened:
            orders = OrderFile(opened, datetime.fromtimestamp(int(file.stat().st_mtime), UTC), dates)
            orders.read()
    except UnreadableFile as problem:
        raise click.ClickException(f"{file.name}: {problem}") from None
    problems = orders.problems
    for order in orders.orders:
        if order.currency not in usd_rates:
            problems.append(f"order {order.order_id}: it is in {order.currency}; add --usd-rate {order.currency}=RATE")
    for line in problems if skip_invalid else problems[:MAX_SHOWN]:
        echo_literally(f"{file.name}: {line}.", err=True)
    if len(problems) > MAX_SHOWN and not skip_invalid:
        echo_literally(f"{file.name}: {len(problems) - MAX_SHOWN} more.", err=True)
    if problems and not skip_invalid:
        orders_word = pluralize(len(problems), "order", "orders")
        raise click.ClickException(
            f"{orders_word} cannot be imported; nothing was written. --skip-invalid leaves them out."
        )
    valid = [order for order in orders.orders if order.currency in usd_rates]
    for at, task, arguments in _order_history(valid, seller_id, seller_email, usd_rates):
        click.echo(json.dumps({"at": format_timestamp(at), "task": task, "kwargs": arguments}))
    if orders.repairs.count:
        echo_literally(f"{file.name}: {orders.repairs}.", err=True)
    less = sum(bool(order.credit or order.coupon) for order in valid)
    lines = pluralize(sum(len(order.items) for order in valid), "line", "lines")
    left_out = pluralize(orders.left_out, "cancelled order", "cancelled orders")
    echo(
        f"{pluralize(len(valid), 'order', 'orders')} of {seller_id} with {lines}, {less} with a credit or a coupon; "
        f"{left_out} left out. Next: `./run replay FILE` shows what becomes of them; with --database-url it plays them "
        "into an empty database.",
        err=True,
    )


def _order_history(
    orders: Iterable[FileOrder], seller_id: str, seller_email: str, usd_rates: Mapping[str, Decimal]
) -> list[DatedCommand]:
    orders = sorted(orders, key=lambda order: (order.at, order.order_id))
    # For items of old orders, which name no lot. The lots end with the order, so the numbers mean nothing.
    unnumbered = count(8_000_000_000_000)
    commands: list[DatedCommand] = []
    emails = {order.buyer: order.buyer_email for order in sorted(orders, key=lambda order: order.buyer_email)}
    for member_id, email in ({seller_id: seller_email} | emails).items() if orders else ():
        name = "".join(c if c.isascii() and c.isalnum() else "-" for c in member_id).strip("-") or "member"
        member = {"member_id": member_id, "handle": member_id, "email": email or f"{name[:48]}@unknown.invalid"}
        commands.append((orders[0].at, "members.record", member))
    for order in orders:
        commands += _order_commands(order, seller_id, usd_rates[order.currency], unnumbered)
    return sorted(commands, key=lambda command: command[0])


def _order_commands(
    order: FileOrder, seller_id: str, usd_rate: Decimal, unnumbered: Iterator[int]
) -> Iterator[DatedCommand]:
    named = {"order_id": order.order_id}
    purchase: dict[str, Any] = named | {"buyer_id": order.buyer, "seller_id": seller_id}
    purchase |= {"currency": order.currency, "usd_rate": f"{usd_rate:f}"}
    amounts = {"credit": order.credit, "coupon": order.coupon}
    purchase |= {name: format_price(amount) for name, amount in amounts.items() if amount}
    for number, batch in enumerate(_order_batches(order, unnumbered)):
        for lot_id, item in batch.items():
            yield order.at, "inventory.record_lot", {"lot": _ordered_lot(lot_id, seller_id, item)}
        bought = {"lines": [{"lot_id": lot_id, "quantity": item["quantity"]} for lot_id, item in batch.items()]}
        if number:
            yield order.at, "orders.add_batch", named | bought
        else:
            yield order.at, "orders.submit", purchase | bought
    if order.payment_status != PaymentStatus.NONE:
        yield order.changed_at, "orders.record_payment", named | {"payment_status": order.payment_status}
    if order.status not in ("PENDING", "UPDATED"):
        by_seller = "SHIPPED" if order.status == "RECEIVED" else order.status
        yield order.changed_at, "orders.set_status", named | {"member_id": seller_id, "status": by_seller}
    if order.status == "RECEIVED":
        yield order.changed_at, "orders.set_status", named | {"member_id": order.buyer, "status": "RECEIVED"}


def _order_batches(order: FileOrder, unnumbered: Iterator[int]) -> list[dict[int, Mapping[str, Any]]]:
    batches: list[dict[int, Mapping[str, Any]]] = []
    for item in order.items:
        lot_id = item["lot_id"] or next(unnumbered)
        batch = next((batch for batch in batches if lot_id not in batch), None)
        if batch is None:
            batches.append(batch := {})
        batch[lot_id] = item
    return batches


def _ordered_lot(lot_id: int, seller_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        "lot_id": lot_id,
        "seller_id": seller_id,
        "item": {"no": given["item_no"], "type": given["item_type"]},
        "color_id": given.get("color_id", 0),
        "quantity": given["quantity"],
        "new_or_used": given["new_or_used"],
        "unit_price": format_price(given["unit_price"]),
    }
    return facts | {name: given[name] for name in ("completeness", "description", "remarks") if given.get(name)}
