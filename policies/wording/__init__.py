"""In which words is each event told?  One entry per notice, with its rule and its readers (rules.md 9)."""

from __future__ import annotations

from policies.letters import Letter
from policies.wording.telling import Telling


def compose(telling: Telling) -> Letter:
    """The letter to one reader about one event."""
    order = f" of order {telling.order_id}" if telling.order_id is not None else ""
    return Letter(f"{telling.event}{order}", (f"{telling.event}{order}.",))
