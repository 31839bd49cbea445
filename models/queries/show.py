"""The queries of `show` and `explain`: each returns JSON for the arguments of a command line.

The command line and the `show` lines of a simulation both use them.  They take no locks and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from models import bills, inventory, members, notices
from models.queries import fee_credits, forecast, order
from policies.billing_months import parse_month
from policies.statuses import Role
from policies.timestamps import format_optional_timestamp, format_timestamp, parse_timestamp

MAX_DAYS = 366
"""The limit of a forecast; no terms let an alert wait that long."""


@dataclass(frozen=True, slots=True)
class Query:
    noun: str
    arguments: tuple[Any, ...] = ()
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueryKind:
    """A kind of query: the parsers of its arguments and required options, and whether it takes `--at`."""

    usage: str
    run: Callable[[Connection, Query, datetime], Any]
    parsers: tuple[Callable[[str], Any], ...] = ()
    required_options: dict[str, Callable[[str], Any]] = field(default_factory=dict)
    at: bool = False


class InvalidQuery(ValueError):
    """The arguments are no valid query; the message says what is."""


def use_snapshot_isolation(conn: Connection) -> None:
    """Make all statements of this transaction read one snapshot.  Must be its first statement."""
    conn.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def run_query(conn: Connection, words: Sequence[Any], *, now: datetime, at: datetime | None = None) -> Any:
    """Return the JSON for a query such as `["order", 1003]` or `["explain", "order", "1003", "--at", T]`.

    `at` stands in for `--at`.  Raises InvalidQuery for an invalid query; returns None for an unknown thing.
    """
    query = parse_query(words)
    if at is not None and query.at is None and KINDS[query.noun].at:
        query = Query(query.noun, query.arguments, at)
    return KINDS[query.noun].run(conn, query, now)


def parse_query(words: Sequence[Any]) -> Query:
    if not all(isinstance(word, str) or (isinstance(word, int) and not isinstance(word, bool)) for word in words):
        raise InvalidQuery("a query consists of texts and numbers")
    arguments = [str(word) for word in words]
    noun = arguments.pop(0) if arguments else ""
    if noun == "explain":
        if arguments[:1] != ["order"]:
            raise InvalidQuery("explain needs an order. Usage: explain order ID [--at T]")
        arguments.pop(0)
    kind = KINDS.get(noun)
    if kind is None:
        raise InvalidQuery(f"show does not know {noun!r}; it knows {', '.join(KINDS)}")
    try:
        return _parse_arguments(noun, kind, arguments)
    except InvalidQuery:
        raise
    except ValueError as error:
        raise InvalidQuery(f"{error}. Usage: {kind.usage}") from None


def _parse_arguments(noun: str, kind: QueryKind, arguments: list[str]) -> Query:
    options = kind.required_options | ({"--at": parse_timestamp} if kind.at else {})
    positional: list[str] = []
    option_values: dict[str, Any] = {}
    remaining = iter(arguments)
    for word in remaining:
        if not word.startswith("--"):
            positional.append(word)
            continue
        value = next(remaining, None)
        if word not in options or word in option_values or value is None:
            raise InvalidQuery(f"{word} is unknown, repeated or has no value. Usage: {kind.usage}")
        option_values[word] = options[word](value)
    if len(positional) != len(kind.parsers) or any(name not in option_values for name in kind.required_options):
        raise InvalidQuery(f"there are too few or too many arguments. Usage: {kind.usage}")
    values = tuple(parser(word) for parser, word in zip(kind.parsers, positional, strict=True))
    return Query(noun, values + tuple(option_values[name] for name in kind.required_options), option_values.get("--at"))


def parse_order_id(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 19 and int(word) < 2**63):
        raise ValueError("an order's id is a whole number")
    return int(word)


def parse_billing_month(word: str) -> date:
    try:
        return parse_month(word)
    except ValueError:
        raise ValueError("a billing month is written like 2026-03") from None


def _parse_days(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 3 and 0 < int(word) <= MAX_DAYS):
        raise ValueError(f"a forecast covers 1 to {MAX_DAYS} days")
    return int(word)


def _parse_id(word: str) -> str:
    if "\x00" in word or any(0xD800 <= ord(c) <= 0xDFFF for c in word):
        raise ValueError("an id is plain text")
    return word


def _order(conn: Connection, query: Query, now: datetime) -> Any:
    return order.show_order(conn, query.arguments[0], at=query.at, now=now)


def _explain(conn: Connection, query: Query, now: datetime) -> Any:
    return order.explain_order(conn, query.arguments[0], at=query.at, now=now)


def _lots(conn: Connection, query: Query, _now: datetime) -> Any:
    (seller_id,) = query.arguments
    if not members.load_facts(conn, [seller_id]):
        return None
    return [lot.snapshot() for lot in inventory.load_lots(conn, seller_id)]


def _bill(conn: Connection, query: Query, now: datetime) -> Any:
    seller_id, month = query.arguments
    return bills.load_bill_json(conn, seller_id, month, now)


def _member(conn: Connection, query: Query, _now: datetime) -> Any:
    member = members.load_facts(conn, query.arguments).get(query.arguments[0])
    if member is None:
        return None
    as_buyer, as_seller = member.strikes(Role.BUYER), member.strikes(Role.SELLER)
    return {
        "member_id": member.member_id,
        "handle": member.handle,
        "state": "terminated" if member.terminated else "active",
        "can_buy": member.can_buy and not member.terminated,
        "can_sell": member.can_sell and not member.terminated,
        "strikes": sorted({*as_buyer, *as_seller}),
        "strikes_as_buyer": list(as_buyer),
        "strikes_as_seller": list(as_seller),
    }


def _notices(conn: Connection, query: Query, _now: datetime) -> Any:
    (order_id,) = query.arguments
    row = conn.execute(text("SELECT FROM unwind.orders WHERE order_id = :id"), {"id": order_id}).one_or_none()
    return None if row is None else notices.list_for_order(conn, order_id)


def _alerts(conn: Connection, query: Query, _now: datetime) -> Any:
    rows = conn.execute(
        text(
            "SELECT a.*, o.seller_id, o.buyer_id, o.status FROM unwind.alerts a JOIN unwind.orders o USING (order_id) "
            "WHERE a.state = 'open' AND a.unlocks_at < :before ORDER BY a.unlocks_at, a.alert_id"
        ),
        {"before": query.arguments[0]},
    )
    return [
        {
            "order_id": row.order_id,
            "kind": row.kind,
            "status": row.status,
            "seller_id": row.seller_id,
            "buyer_id": row.buyer_id,
            "filed_at": format_timestamp(row.filed_at),
            "responded_at": format_optional_timestamp(row.responded_at),
            "unlocks_at": format_timestamp(row.unlocks_at),
            "unlocked_at": format_optional_timestamp(row.unlocked_at),
        }
        for row in rows
    ]


def _request(conn: Connection, query: Query, _now: datetime) -> Any:
    row = conn.execute(
        text(
            "SELECT v.*, coalesce(r.answer, s.answer) AS answer FROM unwind.v_request_status AS v "
            "LEFT JOIN unwind.requests AS r USING (request_id) LEFT JOIN unwind.submissions AS s USING (request_id) "
            "WHERE v.request_id = :id"
        ),
        {"id": query.arguments[0]},
    ).one_or_none()
    if row is None:
        return None
    return {
        "request_id": row.request_id,
        "task": row.task,
        "order_id": row.order_id,
        "door": row.door,
        "state": row.state,
        "outcome": row.outcome,
        "code": row.code,
        "message": row.message,
        "submitted_at": format_optional_timestamp(row.submitted_at),
        "answered_at": format_optional_timestamp(row.answered_at),
        "answer": row.answer,
    }


def _credits(conn: Connection, query: Query, _now: datetime) -> Any:
    (seller_id,) = query.arguments
    if not members.load_facts(conn, [seller_id]):
        return None
    return {"seller_id": seller_id, "credits": fee_credits.of_seller(conn, seller_id)}


def _forecast(conn: Connection, query: Query, now: datetime) -> Any:
    (days,) = query.arguments
    return forecast.unlock_forecast(conn, days=days, now=now)


def _sweeps(conn: Connection, _query: Query, _now: datetime) -> Any:
    rows = conn.execute(text("SELECT * FROM unwind.v_sweep_history ORDER BY sweep, hour"))
    return [
        {
            "sweep": row.sweep,
            "last_ran_at": format_timestamp(row.last_ran_at),
            "found_ever": row.found_ever,
            "hour": format_optional_timestamp(row.hour),
            "found": row.found,
            "runs": row.runs,
            "longest_gap_seconds": row.longest_gap_seconds,
        }
        for row in rows
    ]


def _late_payments(conn: Connection, _query: Query, _now: datetime) -> Any:
    rows = conn.execute(
        text("SELECT * FROM unwind.v_late_payment WHERE settled_at IS NULL ORDER BY recorded_at, order_id")
    )
    return [
        {
            "order_id": row.order_id,
            "seller_id": row.seller_id,
            "buyer_id": row.buyer_id,
            "payment_status": row.payment_status,
            "recorded_at": format_timestamp(row.recorded_at),
        }
        for row in rows
    ]


KINDS: dict[str, QueryKind] = {
    "order": QueryKind("order ID [--at T]", _order, (parse_order_id,), at=True),
    "explain": QueryKind("explain order ID [--at T]", _explain, (parse_order_id,), at=True),
    "lots": QueryKind("lots SELLER", _lots, (_parse_id,)),
    "bill": QueryKind("bill SELLER 2026-03", _bill, (_parse_id, parse_billing_month)),
    "member": QueryKind("member ID", _member, (_parse_id,)),
    "notices": QueryKind("notices --order ID", _notices, required_options={"--order": parse_order_id}),
    "alerts": QueryKind("alerts --due-before T", _alerts, required_options={"--due-before": parse_timestamp}),
    "request": QueryKind("request REQUEST_ID", _request, (_parse_id,)),
    "credits": QueryKind("credits SELLER", _credits, (_parse_id,)),
    "forecast": QueryKind("forecast --days N", _forecast, required_options={"--days": _parse_days}),
    "sweeps": QueryKind("sweeps", _sweeps),
    "late-payments": QueryKind("late-payments", _late_payments),
}
