"""The words of `show` and `explain`, parsed by click into queries.

The command line prints what a query returns; a history that is replayed records it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from inspect import signature
from typing import Any

import click
from sqlalchemy import Connection

from models import bills
from models.queries import forecast, order, show
from policies.bills import parse_month
from policies.texts import is_storable
from policies.timestamps import format_timestamp, parse_timestamp


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and the sentence for an unknown subject.  `at` is the instant asked for."""

    noun: str
    read: Callable[[Connection, datetime], Any]
    missing: str = ""
    at: datetime | None = None


def _order_id(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 19 and int(word) < 2**63):
        raise click.BadParameter("an order's id is a whole number.")
    return int(word)


def _parsed_by(parse: Callable[[str], Any], refusal: str = "") -> Callable[[str], Any]:
    def convert(word: str) -> Any:
        try:
            return parse(word)
        except ValueError as error:
            raise click.BadParameter(refusal or f"{error}.") from None

    return convert


def _query_id(word: str) -> str:
    if not is_storable(word):
        raise click.BadParameter("an id is plain text.")
    return word


ORDER, NAME, TIME = _order_id, _query_id, _parsed_by(parse_timestamp)
MONTH = _parsed_by(parse_month, "a billing month is written like 2026-03.")
_ORDER_ID = click.Argument(["order_id"], metavar="ID", type=ORDER)
_SELLER = click.Argument(["seller_id"], metavar="SELLER", type=NAME)
_AT = click.Option(["--at"], type=TIME, metavar="T", help="As of another time, such as 2026-03-30T09:00:00Z.")
_NO_SELLER = "There is no member {seller_id}.".format
_ALWAYS_KNOWN = "".format
explain_query_nouns = click.Group("explain", help="What the parties of an order can do, and why the rest is refused.")
nouns = click.Group(commands=[explain_query_nouns])


def _no_order(order_id: int, at: datetime | None = None) -> str:
    return f"There was no order {order_id} at {format_timestamp(at)}." if at else f"There is no order {order_id}."


def _add_noun(
    words: str, about: str, query: Callable[..., Any], missing: Callable[..., str], *params: click.Parameter
) -> None:
    # The values of `params` are arguments of the query, which may also take `now`, and of `missing`.
    noun, _, of_noun = words.partition(" ")
    takes_now = "now" in signature(query).parameters

    def parse(**given: Any) -> Query:
        def read(conn: Connection, now: datetime) -> Any:
            return query(conn, **given, **({"now": now} if takes_now else {}))

        return Query(noun, read, missing(**given), given.get("at"))

    settings = {"ignore_unknown_options": True}  # an id may begin with a hyphen
    command = click.Command(of_noun or noun, settings, parse, [*params], help=about)
    (explain_query_nouns if of_noun else nouns).add_command(command)


_add_noun("order", "An order with its timeline, now or at another time.", order.show_order, _no_order, _ORDER_ID, _AT)
_add_noun(
    "explain order",
    "What each party can do, and why the rest is refused.",
    order.explain_order,
    _no_order,
    _ORDER_ID,
    _AT,
)
_add_noun("lots", "The lots of a seller.", show.show_lots, _NO_SELLER, _SELLER)
_add_noun(
    "bill",
    "The bill of a seller for a month, line by line.",
    bills.load_bill_json,
    "There is no bill of {seller_id} for {month:%Y-%m}: the seller is unknown or the month has not begun.".format,
    _SELLER,
    click.Argument(["month"], metavar="2026-03", type=MONTH),
)
_add_noun(
    "member",
    "A member: rights to buy and sell, and strikes.",
    show.show_member,
    "There is no member {member_id}.".format,
    click.Argument(["member_id"], metavar="ID", type=NAME),
)
_add_noun(
    "notices",
    "The emails about an order, and whether they were sent.",
    show.show_notices,
    _no_order,
    click.Option(["--order", "order_id"], metavar="ID", type=ORDER, required=True, help="The order."),
)
_add_noun(
    "alerts",
    "The open alerts that unlock before a time.",
    show.show_alerts,
    _ALWAYS_KNOWN,
    click.Option(["--due-before"], metavar="T", type=TIME, required=True, help="The end of the time asked."),
)
_add_noun(
    "request",
    "The answer of a command, by its request id.",
    show.show_request,
    (
        "There is no answer for request {request_id}: it has not been answered yet, it was invalid (such requests are "
        "not stored), it was never made, or its answer was pruned."
    ).format,
    click.Argument(["request_id"], type=NAME),
)
_add_noun(
    "credits", "The fees of a seller's cancelled orders: reset or credited.", show.show_credits, _NO_SELLER, _SELLER
)
_add_noun(
    "forecast",
    "When alerts will unlock, hour by hour.",
    forecast.unlock_forecast,
    _ALWAYS_KNOWN,
    click.Option(["--days"], type=click.IntRange(1, forecast.MAX_DAYS), required=True, help="Days to look ahead."),
)
_add_noun("sweeps", "When each sweep found something, and whether it was late.", show.show_sweeps, _ALWAYS_KNOWN)
_add_noun("late-payments", "The late payments that sellers have not sent back.", show.show_late_payments, _ALWAYS_KNOWN)


def parse_query(words: Sequence[Any]) -> Query:
    if not all(isinstance(word, str) or (isinstance(word, int) and not isinstance(word, bool)) for word in words):
        raise ValueError("a query is made of words and numbers")
    if not words:
        raise ValueError(f"say what to show: {', '.join(nouns.commands)}")
    try:
        query = nouns.main([str(word) for word in words], "show", standalone_mode=False, help_option_names=[])
    except click.ClickException as error:
        raise ValueError(error.format_message()) from None
    assert isinstance(query, Query)
    return query
