"""The invariant: a sentence, and a query that returns the ids for which it is not true.

A query checks everything, or only a scope.  It marks where it can be narrowed: `[o.order_id IN orders]` is true when
everything is checked, and otherwise a condition on the orders of a `Scope`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

MAX_IDS = 100
"""The maximum number of ids reported for one sentence."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What to check: orders, sellers, items as (seller, number), outbox messages, and answers since an instant."""

    orders: tuple[int, ...] = ()
    sellers: tuple[str, ...] = ()
    items: tuple[tuple[str, str], ...] = ()
    promises: tuple[int, ...] = ()
    answers: datetime | None = None

    def values(self) -> dict[str, Any]:
        return {
            "orders": list(self.orders),
            "sellers": list(self.sellers),
            "item_sellers": [seller for seller, _ in self.items],
            "item_nos": [number for _, number in self.items],
            "promises": list(self.promises),
            "answers": self.answers,
        }


@dataclass(frozen=True, slots=True)
class Invariant:
    """`group` numbers related invariants.  A query may use `:now`; without a scope marker it checks everything."""

    group: int
    sentence: str
    query: str

    @property
    def narrows(self) -> bool:
        return _PLACE.search(self.query) is not None

    def broken(self, conn: Connection, now: datetime, scope: Scope | None = None) -> list[str]:
        """Return the ids that violate it, at most `MAX_IDS`: in `scope`, or anywhere."""
        values = {"now": now} | (scope.values() if scope is not None else {})
        query = _PLACE.sub("true" if scope is None else _narrowed, self.query)
        asked = text(f"SELECT * FROM ({query}) AS broken(id) LIMIT {MAX_IDS}")  # noqa: S608 - our own texts
        wanted = {name: value for name, value in values.items() if re.search(rf"(?<!:):{name}\b", query)}
        return [str(one) for one in conn.execute(asked, wanted).scalars()]


_PLACE = re.compile(r"\[(\w[\w., ]*) IN (orders|sellers|items|promises|answers)\]")
_CONDITIONS = {
    "orders": "{0} = ANY(CAST(:orders AS bigint[]))",
    "sellers": "{0} = ANY(CAST(:sellers AS text[]))",
    "items": "({0}) IN (SELECT * FROM unnest(CAST(:item_sellers AS text[]), CAST(:item_nos AS text[])))",
    "promises": "{0} = ANY(CAST(:promises AS bigint[]))",
    "answers": "{0} >= CAST(:answers AS timestamptz)",
}


def _narrowed(place: re.Match[str]) -> str:
    columns, kind = place.groups()
    return _CONDITIONS[kind].format(columns)
