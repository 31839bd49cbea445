"""The `import-orders` command: writes the orders of a file as a history for `replay`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import click

from policies.texts import pluralize
from workers.cli.files.file_problems import describe_repairs
from workers.cli.files.item_fields import parse_amount_field
from workers.cli.files.order_reader import DATE_FORMATS, OrderFile, history_lines
from workers.cli.files.xml_records import UnreadableFile
from workers.cli.terminal_text import echo, echo_literally

MAX_SHOWN = 20


def _parse_exchange_rates(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, Decimal]:
    rates = {}
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
        if order.currency != "USD" and order.currency not in usd_rates:
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
    valid = [order for order in orders.orders if order.currency == "USD" or order.currency in usd_rates]
    for entry in history_lines(valid, seller_id, seller_email, usd_rates):
        click.echo(json.dumps(entry))
    if orders.repairs:
        echo_literally(f"{file.name}: {describe_repairs(orders.repairs)}.", err=True)
    less = sum(bool(order.credit or order.coupon) for order in valid)
    lines = pluralize(sum(len(order.items) for order in valid), "line", "lines")
    left_out = pluralize(orders.left_out, "cancelled order", "cancelled orders")
    echo(
        f"{pluralize(len(valid), 'order', 'orders')} of {seller_id} with {lines}, {less} with a credit or a coupon; "
        f"{left_out} left out. Next: `./run replay FILE` shows what becomes of them; with --database-url it plays them "
        "into an empty database.",
        err=True,
    )
