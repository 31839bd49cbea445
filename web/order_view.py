"""One order as one reader of the Problem Order page sees it, and the answers to the commands of that session."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Request
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool

from models import members, submissions
from models.queries import order
from policies.cases import Actor
from policies.options import ACTIONS
from policies.statuses import Role
from tasks.command import MAX_INT64
from web.api import query_snapshot
from web.forms import ActionForm, action_form, read_form
from web.problems import Problem
from web.sessions import Session, check_csrf, sessions_of


@dataclass(frozen=True, slots=True)
class View:
    """An order for one reader; `role` is None for staff, who only read."""

    session: Session
    role: Role | None
    zone: str
    facts: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def shows_money(self) -> bool:
        return self.role is not Role.BUYER

    @property
    def possible(self) -> list[ActionForm]:
        if self.role is None:
            return []
        listed = [action_form(o, self.role) for o in self.options["options"] if o["possible"]]
        return [form for form in listed if form.action != "drafts.open"]

    @property
    def impossible(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What this party cannot do; for staff everything of both parties."""
        if self.role is None:
            both = [(role, option) for role in ("seller", "buyer") for option in self.options[role]]
            return [(f"{role}: {ACTIONS[option['action']].label}", option) for role, option in both]
        return [(ACTIONS[o["action"]].label, o) for o in self.options["options"] if not o["possible"]]

    @property
    def may_edit(self) -> bool:
        editing = (o for o in self.options["options"] if o["action"] == "drafts.open")
        return self.role is not None and any(o["possible"] for o in editing)

    @property
    def returning_lines(self) -> list[Mapping[str, Any]]:
        return [line for line in self.facts["lines"] if line["remaining"]]


def new_request_id(session: Session) -> str:
    return f"web.{session.session_id}.{secrets.token_hex(12)}"


def is_order_id(value: Any) -> bool:
    text = str(value)
    return text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= MAX_INT64


def load_view(request: Request, order_id: str) -> View:
    """Load an order for the member who is signed in. A stranger's order is as unknown as one that does not exist."""
    session = sessions_of(request).load(request)

    def query(conn: Connection, now: datetime) -> Any:
        if session.is_staff:
            options = order.explain_order(conn, int(order_id), at=None, now=now)
        else:
            options = order.show_order_options(conn, int(order_id), Actor(session.name), now=now)
        if options is None:
            return None
        zone = "UTC" if session.is_staff else members.time_zone_of(conn, session.name)
        return options, order.show_order(conn, int(order_id), at=None, now=now), zone

    loaded = query_snapshot(request, query) if is_order_id(order_id) else None
    if loaded is None:
        raise Problem(404, "There is no order with this number of yours.")
    options, facts, zone = loaded
    role = None if session.is_staff else Role.SELLER if facts["seller_id"] == session.name else Role.BUYER
    return View(session, role, zone, facts, options)


async def load_view_for_change(request: Request, order_id: str) -> tuple[View, dict[str, str]]:
    session, typed = sessions_of(request).load(request), await read_form(request)
    check_csrf(session, typed.get("csrf", ""))
    view = await run_in_threadpool(load_view, request, order_id)
    if view.role is None:
        raise Problem(403, "Staff can read this page and change nothing on it.")
    return view, typed


def load_answer_for_view(request: Request, view: View, request_id: str) -> tuple[Mapping[str, Any] | None, bool]:
    """Return the answer to show, and whether it is still awaited. Only answers of this session are shown."""
    if not request_id.startswith(f"web.{view.session.session_id}."):
        return None, False
    answers = query_snapshot(request, lambda conn, _: submissions.send_submission_answers_query(conn, [request_id])())
    return answers.get(request_id), request_id not in answers
