"""The words of `show` and `explain`, parsed by click into queries.

The command line prints what a query returns; a history that is replayed records it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
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


class InvalidQuery(ValueError):
    pass


def _show_query_argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(word: str) -> Any:
        try:
            return parse(word)
        except ValueError as error:
            raise click.BadParameter(f"{error}.") from None

    return convert


def _order_id(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 19 and int(word) < 2**63):
        raise ValueError("an order's id is a whole number")
    return int(word)


def _month(word: str) -> date:
    try:
        return parse_month(word)
    except ValueError:
        raise ValueError("a billing month is written like 2026-03") from None


def _query_id(word: str) -> str:
    if not is_storable(word):
        raise ValueError("an id is plain text")
    return word


ORDER, MONTH, TIME, NAME = (_show_query_argument(parse) for parse in (_order_id, _month, parse_timestamp, _query_id))
query_at_option = click.option("--at", type=TIME, metavar="T", help="As of another time, such as 2026-03-30T09:00:00Z.")
QUERY_WORDS = {"ignore_unknown_options": True}  # an id may begin with a hyphen


@click.group()
def nouns() -> None:
    pass


def _no_member_for_query(member_id: str) -> str:
    return f"There is no member {member_id}."


def _no_order_for_query(order_id: int, at: datetime | None = None) -> str:
    return f"There was no order {order_id} at {format_timestamp(at)}." if at else f"There is no order {order_id}."


def _add_order_query(group: click.Group, noun: str, read: Callable[..., Any], about: str) -> None:
    @group.command("order", context_settings=QUERY_WORDS, help=about)
    @click.argument("order_id", metavar="ID", type=ORDER)
    @query_at_option
    def parse(order_id: int, at: datetime | None) -> Query:
        missing = _no_order_for_query(order_id, at)
        return Query(noun, lambda conn, now: read(conn, order_id, at=at, now=now), missing, at)


_add_order_query(nouns, "order", order.show_order, "An order with its timeline, now or at another time.")


@nouns.group("explain")
def explain_query_nouns() -> None:
    """What the parties of an order can do, and why the rest is refused."""


_add_order_query(
    explain_query_nouns, "explain", order.explain_order, "What each party can do, and why the rest is refused."
)


@nouns.command("lots", context_settings=QUERY_WORDS)
@click.argument("seller", type=NAME)
def parse_show_lots(seller: str) -> Query:
    """The lots of a seller."""
    return Query("lots", lambda conn, _: show.show_lots(conn, seller), _no_member_for_query(seller))


@nouns.command("bill", context_settings=QUERY_WORDS)
@click.argument("seller", type=NAME)
@click.argument("month", metavar="2026-03", type=MONTH)
def parse_show_bill(seller: str, month: date) -> Query:
    """The bill of a seller for a month, line by line."""
    return Query(
        "bill",
        lambda conn, now: bills.load_bill_json(conn, seller, month, now),
        f"There is no bill of {seller} for {month:%Y-%m}: the seller is unknown or the month has not begun.",
    )


@nouns.command("member", context_settings=QUERY_WORDS)
@click.argument("member_id", metavar="ID", type=NAME)
def parse_show_member(member_id: str) -> Query:
    """A member: rights to buy and sell, and strikes."""
    return Query("member", lambda conn, _: show.show_member(conn, member_id), _no_member_for_query(member_id))


@nouns.command("notices", context_settings=QUERY_WORDS)
@click.option("--order", "order_id", metavar="ID", type=ORDER, required=True, help="The order.")
def parse_show_notices(order_id: int) -> Query:
    """The emails about an order, and whether they were sent."""
    return Query("notices", lambda conn, _: show.show_notices(conn, order_id), _no_order_for_query(order_id))


@nouns.command("alerts", context_settings=QUERY_WORDS)
@click.option("--due-before", metavar="T", type=TIME, required=True, help="The end of the time asked.")
def parse_show_alerts(due_before: datetime) -> Query:
    """The open alerts that unlock before a time."""
    return Query("alerts", lambda conn, _: show.show_alerts(conn, due_before))


@nouns.command("request", context_settings=QUERY_WORDS)
@click.argument("request_id", type=NAME)
def parse_show_request(request_id: str) -> Query:
    """The answer of a command, by its request id."""
    return Query(
        "request",
        lambda conn, _: show.show_request(conn, request_id),
        f"There is no answer for request {request_id}: it has not been answered yet, it was invalid (such requests are "
        "not stored), it was never made, or its answer was pruned.",
    )


@nouns.command("credits", context_settings=QUERY_WORDS)
@click.argument("seller", type=NAME)
def parse_show_credits(seller: str) -> Query:
    """The fees of a seller's cancelled orders: reset or credited."""
    return Query("credits", lambda conn, _: show.show_credits(conn, seller), _no_member_for_query(seller))


@nouns.command("forecast", context_settings=QUERY_WORDS)
@click.option("--days", type=click.IntRange(1, forecast.MAX_DAYS), required=True, help="Days to look ahead.")
def parse_show_forecast(days: int) -> Query:
    """When alerts will unlock, hour by hour."""
    return Query("forecast", lambda conn, now: forecast.unlock_forecast(conn, days=days, now=now))


@nouns.command("sweeps", context_settings=QUERY_WORDS)
def parse_show_sweeps() -> Query:
    """When each sweep found something, and whether it was late."""
    return Query("sweeps", lambda conn, _: show.show_sweeps(conn))


@nouns.command("late-payments", context_settings=QUERY_WORDS)
def parse_show_late_payments() -> Query:
    """The late payments that sellers have not sent back."""
    return Query("late-payments", lambda conn, _: show.show_late_payments(conn))


def parse_query(words: Sequence[Any]) -> Query:
    if not all(isinstance(word, str) or (isinstance(word, int) and not isinstance(word, bool)) for word in words):
        raise InvalidQuery("a query is made of words and numbers")
    if not words:
        raise InvalidQuery(f"say what to show: {', '.join(nouns.commands)}")
    try:
        query = nouns.main([str(word) for word in words], "show", standalone_mode=False, help_option_names=[])
    except click.ClickException as error:
        raise InvalidQuery(error.format_message()) from None
    assert isinstance(query, Query)
    return query


def run_query(conn: Connection, words: Sequence[Any], *, now: datetime) -> Any:
    return parse_query(words).read(conn, now)
