"""The queries of `show` and `explain`: each returns JSON for the words of the command line.

The command line and the `show` lines of a simulation both use them.  They take no locks and change nothing.  An unknown
thing is None.
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
    which: tuple[Any, ...] = ()
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueryKind:
    """A kind of query: the parsers of its words and of its required options, and whether it takes `--at`."""

    usage: str
    see: Callable[[Connection, Query, datetime], Any]
    words: tuple[Callable[[str], Any], ...] = ()
    needs: dict[str, Callable[[str], Any]] = field(default_factory=dict)
    at: bool = False


class InvalidQuery(ValueError):
    """The words are no valid query; the message says what is."""


def use_snapshot_isolation(conn: Connection) -> None:
    """Make all statements of this transaction read one snapshot.  Must be its first statement."""
    conn.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def run_query(conn: Connection, words: Sequence[Any], *, now: datetime, at: datetime | None = None) -> Any:
    """Return the JSON for a query such as `["order", 1003]` or `["explain", "order", "1003", "--at", T]`.

    `at` stands in for `--at`.  Raises InvalidQuery for an invalid query; returns None for an unknown thing.
    """
    wanted = parse_query(words)
    if at is not None and wanted.at is None and KINDS[wanted.noun].at:
        wanted = Query(wanted.noun, wanted.which, at)
    return KINDS[wanted.noun].see(conn, wanted, now)


def parse_query(words: Sequence[Any]) -> Query:
    if not all(isinstance(word, str) or (isinstance(word, int) and not isinstance(word, bool)) for word in words):
        raise InvalidQuery("a look is made of words and numbers")
    rest = [str(word) for word in words]
    noun = rest.pop(0) if rest else ""
    if noun == "explain":
        if rest[:1] != ["order"]:
            raise InvalidQuery("explain what? It is: explain order ID [--at T]")
        rest.pop(0)
    kind = KINDS.get(noun)
    if kind is None:
        raise InvalidQuery(f"there is no such thing to show; there are: {', '.join(KINDS)}")
    try:
        return _read(noun, kind, rest)
    except InvalidQuery:
        raise
    except ValueError as error:
        raise InvalidQuery(f"{error}. It is: {kind.usage}") from None


def _read(noun: str, kind: QueryKind, rest: list[str]) -> Query:
    options = kind.needs | ({"--at": parse_timestamp} if kind.at else {})
    plain: list[str] = []
    given: dict[str, Any] = {}
    words = iter(rest)
    for word in words:
        if not word.startswith("--"):
            plain.append(word)
            continue
        value = next(words, None)
        if word not in options or word in given or value is None:
            raise InvalidQuery(f"{word} does not belong there. It is: {kind.usage}")
        given[word] = options[word](value)
    if len(plain) != len(kind.words) or any(name not in given for name in kind.needs):
        raise InvalidQuery(f"some words are missing or too many. It is: {kind.usage}")
    which = tuple(read(word) for read, word in zip(kind.words, plain, strict=True))
    return Query(noun, which + tuple(given[name] for name in kind.needs), given.get("--at"))


def order_number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 19 and int(word) < 2**63):
        raise ValueError("an order's id is a whole number")
    return int(word)


def billing_month(word: str) -> date:
    try:
        return parse_month(word)
    except ValueError:
        raise ValueError("a billing month is written like 2026-03") from None


def _days(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 3 and 0 < int(word) <= MAX_DAYS):
        raise ValueError(f"a forecast is of 1 to {MAX_DAYS} days")
    return int(word)


def _identity(word: str) -> str:
    if "\x00" in word or any(0xD800 <= ord(c) <= 0xDFFF for c in word):
        raise ValueError("an id is plain text")
    return word


def _order(conn: Connection, wanted: Query, now: datetime) -> Any:
    return order.show_order(conn, wanted.which[0], at=wanted.at, now=now)


def _explain(conn: Connection, wanted: Query, now: datetime) -> Any:
    return order.explain_order(conn, wanted.which[0], at=wanted.at, now=now)


def _lots(conn: Connection, wanted: Query, _now: datetime) -> Any:
    (seller_id,) = wanted.which
    if not members.load_facts(conn, [seller_id]):
        return None
    return [lot.snapshot() for lot in inventory.load_lots(conn, seller_id)]


def _bill(conn: Connection, wanted: Query, now: datetime) -> Any:
    seller_id, month = wanted.which
    return bills.load_bill_json(conn, seller_id, month, now)


def _member(conn: Connection, wanted: Query, _now: datetime) -> Any:
    found = members.load_facts(conn, wanted.which).get(wanted.which[0])
    if found is None:
        return None
    as_buyer, as_seller = found.strikes(Role.BUYER), found.strikes(Role.SELLER)
    return {
        "member_id": found.member_id,
        "handle": found.handle,
        "state": "terminated" if found.terminated else "active",
        "can_buy": found.can_buy and not found.terminated,
        "can_sell": found.can_sell and not found.terminated,
        "strikes": sorted({*as_buyer, *as_seller}),
        "strikes_as_buyer": list(as_buyer),
        "strikes_as_seller": list(as_seller),
    }


def _notices(conn: Connection, wanted: Query, _now: datetime) -> Any:
    (order_id,) = wanted.which
    known = conn.execute(text("SELECT FROM unwind.orders WHERE order_id = :id"), {"id": order_id}).one_or_none()
    return None if known is None else notices.list_for_order(conn, order_id)


def _alerts(conn: Connection, wanted: Query, _now: datetime) -> Any:
    rows = conn.execute(
        text(
            "SELECT a.*, o.seller_id, o.buyer_id, o.status FROM unwind.alerts a JOIN unwind.orders o USING (order_id) "
            "WHERE a.state = 'open' AND a.unlocks_at < :before ORDER BY a.unlocks_at, a.alert_id"
        ),
        {"before": wanted.which[0]},
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


def _request(conn: Connection, wanted: Query, _now: datetime) -> Any:
    row = conn.execute(
        text(
            "SELECT v.*, coalesce(r.answer, s.answer) AS answer FROM unwind.v_request_status AS v "
            "LEFT JOIN unwind.requests AS r USING (request_id) LEFT JOIN unwind.submissions AS s USING (request_id) "
            "WHERE v.request_id = :id"
        ),
        {"id": wanted.which[0]},
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


def _credits(conn: Connection, wanted: Query, _now: datetime) -> Any:
    (seller_id,) = wanted.which
    if not members.load_facts(conn, [seller_id]):
        return None
    return {"seller_id": seller_id, "credits": fee_credits.of_seller(conn, seller_id)}


def _forecast(conn: Connection, wanted: Query, now: datetime) -> Any:
    (days,) = wanted.which
    return forecast.unlock_forecast(conn, days=days, now=now)


def _sweeps(conn: Connection, _wanted: Query, _now: datetime) -> Any:
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


def _late_payments(conn: Connection, _wanted: Query, _now: datetime) -> Any:
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
    "order": QueryKind("order ID [--at T]", _order, (order_number,), at=True),
    "explain": QueryKind("explain order ID [--at T]", _explain, (order_number,), at=True),
    "lots": QueryKind("lots SELLER", _lots, (_identity,)),
    "bill": QueryKind("bill SELLER 2026-03", _bill, (_identity, billing_month)),
    "member": QueryKind("member ID", _member, (_identity,)),
    "notices": QueryKind("notices --order ID", _notices, needs={"--order": order_number}),
    "alerts": QueryKind("alerts --due-before T", _alerts, needs={"--due-before": parse_timestamp}),
    "request": QueryKind("request REQUEST_ID", _request, (_identity,)),
    "credits": QueryKind("credits SELLER", _credits, (_identity,)),
    "forecast": QueryKind("forecast --days N", _forecast, needs={"--days": _days}),
    "sweeps": QueryKind("sweeps", _sweeps),
    "late-payments": QueryKind("late-payments", _late_payments),
}
