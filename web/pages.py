"""The Problem Order page: one order for one of its parties, its actions, the four-step edit, and pages for staff.

Every action is a submission like those of `/v1`; the page shows its answer by request id after a redirect, so that a
reload repeats nothing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import HTMLResponse, RedirectResponse, Response

from models import bills
from models.queries import forecast, show
from models.stored_answers import Answer
from policies.bills import parse_month
from policies.emails.context import format_email_timestamp
from policies.reasons import describe_reason
from policies.statuses import Role
from policies.texts import pluralize
from policies.timestamps import parse_timestamp, rewrite_timestamps_for_people
from tasks.command import MAX_COMMENT_LENGTH
from tasks.command_parsing import parse_command
from tasks.declarations import COMMANDS
from web import forms, order_view
from web.api import DEFAULT_WAIT_SECONDS, query_snapshot
from web.order_view import View, is_order_id, load_view, load_view_for_change, new_request_id
from web.problems import Problem
from web.sessions import COOKIE, LOOPBACK, PATH, Session, check_csrf, sessions_of, sign_link

PAGE_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
EDIT_STEPS = ("Select consolidation options", "Edit items", "Verify items", "Return items and cancel order")

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("web"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
)
_templates.globals |= {"PATH": PATH, "STEPS": EDIT_STEPS, "MAX_COMMENT_LENGTH": MAX_COMMENT_LENGTH}
_templates.filters |= {"reason": describe_reason, "pluralize": pluralize}
_style = resources.files("web").joinpath("templates/style.css").read_bytes()

router = APIRouter(prefix=PATH, include_in_schema=False)


def page(name: str, status: int = 200, *, zone: str = "UTC", session: Session | None = None, **values: Any) -> Response:
    try:
        local_zone: tzinfo = ZoneInfo(zone)
    except (ValueError, OSError, KeyError):  # a zone that this installation does not know
        local_zone = UTC

    def instant(text: str | None) -> str:
        return format_email_timestamp(parse_timestamp(text), zone) if text else ""

    body = _templates.get_template(name).render(
        **values, session=session, instant=instant, new_request_id=new_request_id,
        sentence=lambda text: rewrite_timestamps_for_people(text, local_zone),
    )  # fmt: skip
    return HTMLResponse(body, status, {"Content-Security-Policy": PAGE_SECURITY_POLICY})


def render_problem_page(_request: Request, problem: Problem) -> Response:
    return page("problem.html.j2", problem.status, problem=problem)


@router.get("/style.css")
def style() -> Response:
    return Response(_style, media_type="text/css", headers={"Cache-Control": "max-age=300"})


@router.get("/sign-in")
def sign_in_page(request: Request, token: str = "") -> Response:
    sessions = sessions_of(request)
    claims = sessions.use_link(token)
    order_id = claims.get("order_id")
    response = RedirectResponse(f"{PATH}/{order_id}" if is_order_id(order_id) else PATH, 303)
    sessions.start(request, response, claims)
    return response


@router.post("/sign-out")
async def sign_out_page(request: Request) -> Response:
    session, typed = sessions_of(request).load(request), await forms.read_form(request)
    check_csrf(session, typed.get("csrf", ""))
    response = page("problem.html.j2", problem=Problem(200, "You are signed out."))
    response.delete_cookie(COOKIE, path=PATH)
    return response


@router.get("/demo")
def demo_sign_in_page(request: Request) -> Response:
    """Offer members to act as. Only in the demo, and only to this machine."""
    settings = request.app.state.settings
    if not settings.is_demo or request.url.hostname not in LOOPBACK or settings.address not in LOOPBACK:
        raise Problem(404, "There is no such page.")

    def sign_in_links(conn: Connection, now: datetime) -> list[dict[str, Any]]:
        at = int(now.timestamp())
        return [
            {"name": row.handle, "orders": row.orders, "token": sign_link(settings.link_secret, row.member_id, at)}
            for row in show.show_parties_of_problem_orders(conn)
        ] + [{"name": "Staff", "orders": (), "token": sign_link(settings.link_secret, "Kim", at, staff=True)}]

    return page("demo.html.j2", links=query_snapshot(request, sign_in_links))


@router.get("")
def start(request: Request, order: str = "") -> Response:
    session = sessions_of(request).load(request)
    if order.strip():
        if not is_order_id(order.strip()):
            return page("start.html.j2", 422, session=session, error="An order id is a number, such as 1003.")
        return RedirectResponse(f"{PATH}/{order.strip()}", 303)
    return page("start.html.j2", session=session, error="")


@router.get("/forecast")
def forecast_page(request: Request) -> Response:
    session = sessions_of(request).load(request)
    if not session.is_staff:
        raise Problem(404, "There is no such page.")
    days = forecast.DEFAULT_DAYS
    result = query_snapshot(request, lambda conn, now: forecast.unlock_forecast(conn, days=days, now=now))
    late = query_snapshot(request, lambda conn, _: show.show_late_payments(conn))
    return page("forecast.html.j2", session=session, forecast=result, late=late)


@router.get("/bills/{seller_id}/{month}")
def bill_page(request: Request, seller_id: str, month: str) -> Response:
    session = sessions_of(request).load(request)
    bill = None
    with contextlib.suppress(ValueError):  # text that is not a month has no bill
        first_day = parse_month(month)
        if session.is_staff or session.name == seller_id:
            bill = query_snapshot(request, lambda conn, now: bills.load_bill_json(conn, seller_id, first_day, now))
    if bill is None:
        raise Problem(404, "There is no such bill.")
    return page("bill.html.j2", session=session, bill=bill)


@router.get("/{order_id}")
def show_order(request: Request, order_id: str, answer: str = "") -> Response:
    view = load_view(request, order_id)
    stored, waiting = order_view.load_answer_for_view(request, view, answer)
    return _order_page(view, answer=stored, waiting=waiting)


@router.post("/{order_id}/actions/{action}")
async def act(request: Request, order_id: str, action: str) -> Response:
    view, typed = await load_view_for_change(request, order_id)
    assert view.role is not None
    # Of impossible actions too: an action that was possible when the page was shown gets its refusal as the answer.
    usable = (o for o in view.options["options"] if o["action"] != "orders.set_status" or o["possible"])
    wanted = [form for form in (forms.action_form(option, view.role) for option in usable) if form.key == action]
    if not wanted:
        raise Problem(404, "There is no such action now. Open the page again.")
    arguments = forms.typed_arguments(wanted[0], typed) | {"order_id": view.facts["order_id"]}
    if wanted[0].removal_id is not None:
        del arguments["order_id"]
    answer, request_id = await submit_form(request, view, wanted[0].action, arguments, typed)
    if answer is not None and answer["outcome"] == "invalid":
        return _order_page(view, 422, answer=answer, typed=typed, typed_for=action)
    return RedirectResponse(f"{PATH}/{view.facts['order_id']}?answer={request_id}#answer", 303)


async def submit_form(
    request: Request, view: View, task: str, arguments: dict[str, Any], typed: Mapping[str, str]
) -> tuple[dict[str, Any] | None, str]:
    """Submit a command of this member; return its answer, None if it does not come in time, and its request id."""
    # The id comes with the form, so a form sent twice is one command.
    own = re.compile(rf"web\.{view.session.session_id}\.[0-9a-f]{{24}}")
    sent = typed.get("request_id", "")
    request_id = f"{sent}:{task}" if own.fullmatch(sent) else new_request_id(view.session)
    arguments = arguments | {"member_id": view.session.name}
    request.state.task = task
    command = parse_command(COMMANDS[task].model, arguments, request_id)
    if isinstance(command, Answer):
        return command.as_json(), request_id
    submitter = request.app.state.submitter
    result = await submitter.submit(task, json.dumps(arguments), request_id, DEFAULT_WAIT_SECONDS)
    if result.code is not None:  # the same form with other text: the first one counts
        raise Problem(409, "This form was sent before, with something else in it. Open the page again.")
    return result.answer, request_id


def _order_page(view: View, status: int = 200, typed: Mapping[str, str] | None = None, **values: Any) -> Response:
    values = {"answer": None, "waiting": False, "typed_for": ""} | values
    return page(
        "order.html.j2", status, session=view.session, zone=view.zone, view=view, order=view.facts,
        typed=defaultdict(str, typed or {}), nothing=defaultdict(str), **values,
    )  # fmt: skip


@router.get("/{order_id}/edit")
def choose_consolidation(request: Request, order_id: str) -> Response:
    return _edit_page(load_view(request, order_id), 1)


@router.post("/{order_id}/edit")
async def open_draft(request: Request, order_id: str) -> Response:
    view, typed = await load_view_for_change(request, order_id)
    values = {name: typed[name] for name in forms.consolidation_form_choices() if name in typed}
    arguments = {"order_id": view.facts["order_id"], "consolidate": "consolidate" in typed, "values": values}
    answer, _ = await submit_form(request, view, "drafts.open", arguments, typed)
    if answer is None or answer["outcome"] != "done":
        return _edit_page(view, 1, 422, answer=answer)
    return RedirectResponse(f"{PATH}/{order_id}/edit/{answer['effects']['draft_id']}", 303)


@router.get("/{order_id}/edit/{draft_id}")
def edit_items(request: Request, order_id: str, draft_id: str) -> Response:
    return _edit_page(load_view(request, order_id), 2, draft_id=draft_id)


@router.post("/{order_id}/edit/{draft_id}")
async def verify_items(request: Request, order_id: str, draft_id: str) -> Response:
    view, typed = await load_view_for_change(request, order_id)
    named = {"draft_id": draft_id}
    lines = forms.edited_form_lines(typed, [line["line_no"] for line in view.returning_lines])
    answer: Mapping[str, Any] | None = None
    if lines:
        answer, _ = await submit_form(request, view, "drafts.edit", named | {"lines": lines}, typed)
        if answer is None or answer["outcome"] != "done":
            return _edit_page(view, 2, 422, answer=answer, typed=typed, draft_id=draft_id)
    answer, _ = await submit_form(request, view, "drafts.verify", named, {})
    if answer is None or answer["outcome"] != "done" or answer["effects"]["problems"]:
        return _edit_page(view, 2, 422, answer=answer, typed=typed, draft_id=draft_id)
    return _edit_page(view, 3, answer=answer, draft_id=draft_id)


@router.post("/{order_id}/edit/{draft_id}/cancel")
async def cancel_with_draft(request: Request, order_id: str, draft_id: str) -> Response:
    view, typed = await load_view_for_change(request, order_id)
    arguments = {"order_id": view.facts["order_id"], "draft_id": draft_id}
    if comment := typed.get("comment", "").strip():
        arguments["comment"] = comment
    answer, request_id = await submit_form(request, view, "orders.cancel", arguments, typed)
    if answer is not None and answer["outcome"] == "invalid":
        return _edit_page(view, 2, 422, answer=answer, draft_id=draft_id)
    return RedirectResponse(f"{PATH}/{view.facts['order_id']}?answer={request_id}#answer", 303)


def _edit_page(
    view: View, step: int, status: int = 200, typed: Mapping[str, str] | None = None, **values: Any
) -> Response:
    if view.role is not Role.SELLER:
        raise Problem(404, "There is no such page.")
    values = {"draft_id": "", "answer": None, "choices": forms.consolidation_form_choices()} | values
    return page(
        "edit.html.j2", status, session=view.session, zone=view.zone, view=view, order=view.facts, step=step,
        typed=defaultdict(str, typed or {}), editable=forms.EDITABLE, **values,
    )  # fmt: skip
