"""Who is told what, and in which words?  (rules.md 9; N1 to N18)"""

from __future__ import annotations

from typing import Any

from policies.cases import Case
from policies.statuses import Role
from policies.verdicts import Promise


def tell(case: Case, to: Role, notice: str, **facts: Any) -> Promise:
    """The promise to tell one party of the event being written now; its key makes it one notice per (event, recipient)."""
    return told(
        to,
        notice,
        member_id=case.member(to).member_id,
        order_id=case.order.order_id,
        occasion=f"{case.order.order_id}:{case.order.version + 1}",
        **facts,
    )


def told(to: Role, notice: str, *, member_id: str, order_id: int | None, occasion: str, **facts: Any) -> Promise:
    """The same for a notice that is not about one case: `occasion` names the event once and for ever."""
    return Promise(
        task="notices.tell_seller" if to is Role.SELLER else "notices.tell_buyer",
        key=f"{notice}:{occasion}:{member_id}",
        order_id=order_id,
        payload={"event": notice, "recipient": member_id, "role": to, "facts": facts},
    )
