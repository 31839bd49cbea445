"""Tests of the Problem Order page as a browser without JavaScript uses it, and of what must not work on it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import jwt
import psycopg
import pytest

from models.alerts import AlertRow
from models.orders import OrderLineRow
from models.stored_answers import RequestRow
from models.submissions import SubmissionRow
from tests.plugins.market import Market
from tests.plugins.website import Reply, Website, website
from tests.waiting import wait_until
from web.sessions import sign_link
from workers.embedded.client import ServerUrls

SECRET = "a secret that only the marketplace and we know"
SCRIPT = "<script>alert(1)</script>\"'&{{7*7}}"
EIGHT_DAYS = 8 * 86_400


def seed(market: Market) -> None:
    market.done("members.record", member_id="buyer", handle="Bea", email="b@x.org", time_zone="America/New_York")
    for order_id in (1001, 1002, 1003, 1004, 1005, 1006, 1008):
        market.order(order_id)
    hostile = market.lot(700, description=SCRIPT, remarks=SCRIPT)
    market.order(1007, lines=[(hostile, 3), (market.lot(701), 2)])


@pytest.fixture(scope="module")
def site(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Website]:
    with website(servers, admin, template_database, seed, link_secret=SECRET) as running:
        yield running


class _Forms(HTMLParser):
    """The forms of a page with their fields and values, its scripts, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.scripts = 0
        self.text = ""
        self._textarea = ""
        self._select = ""
        self.unlabelled: list[str] = []
        self._labels = set(re.findall(r'<label for="([^"]+)"', html))
        self._depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        assert not any(name.startswith("on") for name in at)
        assert "style" not in at
        self.scripts += tag == "script"
        self._depth += tag == "label"
        if tag == "form":
            self.forms.append({"action": at["action"], "method": at["method"], "fields": {}})
        elif tag == "input" and (at.get("type") != "checkbox" or "checked" in at):
            self.forms[-1]["fields"][at["name"]] = at.get("value", "on")
        elif tag == "textarea":
            self._textarea = at["name"]
            self.forms[-1]["fields"][self._textarea] = ""
        elif tag == "select":
            self._select = at["name"]
        elif tag == "option" and self._select:
            self.forms[-1]["fields"].setdefault(self._select, at.get("value", ""))
        is_field = tag in ("input", "textarea", "select") and at.get("type") != "hidden"
        if is_field and at.get("id") not in self._labels and not self._depth:
            self.unlabelled.append(at["name"])

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "label"
        self._textarea = "" if tag == "textarea" else self._textarea
        self._select = "" if tag == "select" else self._select

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.forms[-1]["fields"][self._textarea] += data
        self.text += data


@dataclass
class Browser:
    site: Website
    cookie: str = ""
    page: Reply = field(default_factory=lambda: Reply(0, {}, b""))
    path: str = ""

    def sign_in(self, name: str, **claims: Any) -> Browser:
        return self.open(f"/problem-order/sign-in?token={link(name, **claims)}")

    def open(self, path: str, body: bytes | None = None) -> Browser:
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self.page = self.site.request("GET" if body is None else "POST", path, body, headers)
        self.path = path
        if "set-cookie" in self.page.headers:
            self.cookie = self.page.headers["set-cookie"].partition(";")[0]
        if self.page.status == 303:
            return self.open(self.page.headers["location"].partition("#")[0])
        return self

    @property
    def parsed(self) -> _Forms:
        return _Forms(self.page.text)

    @property
    def text(self) -> str:
        return " ".join(self.parsed.text.split())

    def form(self, end: str) -> dict[str, Any]:
        return next(form for form in self.parsed.forms if form["action"].endswith(end))

    def actions(self) -> set[str]:
        return {f["action"].rpartition("/")[2] for f in self.parsed.forms if "/actions/" in f["action"]}

    def send(self, end: str, *drop: str, **typed: str) -> Browser:
        form = self.form(end)
        fields = {name: value for name, value in (form["fields"] | typed).items() if name not in drop}
        return self.open(form["action"], urlencode(fields).encode())


def link(name: str, *, secret: str = SECRET, staff: bool = False, **claims: Any) -> str:
    return sign_link(secret, name, int(time.time()), staff=staff, **claims)  # noqa: TID251 - the marketplace's clock


def test_walk_of_the_seller_on_the_specification_page(site: Website) -> None:
    """Enter the order id; file a request with reason and comment; then cancel, with the items returned."""
    seller = Browser(site).sign_in("seller")
    seller.open("/problem-order?order=1001")
    assert "The seller can" in seller.text
    assert "ocr.file" in seller.actions()
    assert "orders.cancel" not in seller.actions()
    seller.send("ocr.file", reason="S_MUTUAL", comment="We agreed.")
    assert "Done" in seller.text
    assert "orders.cancel" in seller.actions()
    assert "Edit the items before they return" in seller.text
    seller.send("orders.cancel")
    assert "CANCELLED" in seller.text
    assert "Returned" in seller.text
    assert site.status(1001) == "CANCELLED"
    assert site.units(501001) == 100
    month = re.findall(r"/problem-order/bills/seller/(\d{4}-\d\d)", seller.page.text)[0]
    assert "Total" in seller.open(f"/problem-order/bills/seller/{month}").text


def test_walk_of_the_buyer_on_the_specification_page(site: Website) -> None:
    """The buyer files a request, the seller agrees or declines."""
    buyer, seller = Browser(site).sign_in("buyer", order_id=1002), Browser(site).sign_in("seller")
    assert "America/New_York" in buyer.text
    assert "Fee and credit" not in buyer.text
    buyer.send("ocr.file", reason="B_MUTUAL", comment="Please.")
    assert "OCR" in buyer.text
    assert "orders.cancel" not in buyer.actions()
    seller.open("/problem-order/1002").send("ocr.decline")
    assert site.status(1002) == "PENDING"
    buyer.open("/problem-order/1002").send("ocr.file", reason="B_SELLER_SILENT", comment="Again.")
    seller.open("/problem-order/1002").send("orders.cancel")
    assert site.stored_order(1002).basis == "OCR_BUYER"


def test_alert_is_filed_answered_and_accepted(site: Website) -> None:
    seller, buyer = Browser(site).sign_in("seller", order_id=1003), Browser(site).sign_in("buyer", order_id=1003)
    seller.send("npb.file")
    assert "allows cancelling from" in seller.text
    buyer.open("/problem-order/1003").send("npb.respond", comment="I will pay.")
    assert "answered on" in buyer.text
    buyer.send("npb.accept_penalty")
    assert "npb.take_back" in buyer.actions()
    buyer.send("npb.take_back")
    seller.open("/problem-order/1003").send("npb.remove")
    assert [alert.state for alert in site.alerts(order_id=1003)] == ["removed"]


def test_four_step_edit(site: Website) -> None:
    """R63: options, edit, verify with target lots, cancel; a mistake shows the step again with what was typed."""
    seller = Browser(site).sign_in("seller", order_id=1007)
    seller.send("ocr.file", reason="S_NO_STOCK", comment="Lost.")
    seller.open("/problem-order/1007/edit").send("/edit", description="new", price="new")
    assert "Edit items" in seller.text
    form_path = seller.path
    wrong = {"quantity-1": "999", "remarks-1": "box 7"}
    seller.send(form_path, **wrong)
    assert seller.page.status == 422
    assert seller.form(form_path)["fields"]["remarks-1"] == "box 7"
    seller.send(form_path, **{"quantity-1": "2", "unit_price-1": "3.5", "description-1": SCRIPT, "delete-2": "on"})
    assert "Step 4" in seller.text
    assert "3.5" in seller.text
    assert seller.parsed.scripts == 0
    seller.send("/cancel", comment="edited")
    assert site.status(1007) == "CANCELLED"
    assert [line.returned for line in site.stored(OrderLineRow, order_id=1007)] == [2, 0]


def test_refusal_and_missing_fields_are_shown_where_they_were_typed(site: Website) -> None:
    seller = Browser(site).sign_in("seller", order_id=1004)
    missing = seller.send("ocr.file", reason="S_MUTUAL", comment="   ")
    assert "COMMENT_REQUIRED" in missing.text
    too_long = seller.send("ocr.file", reason="S_MUTUAL", comment="x" * 2001)
    assert too_long.page.status == 422
    assert "comment must have at most 2000 characters" in too_long.text
    assert too_long.form("ocr.file")["fields"]["comment"] == "x" * 2001


def test_form_that_is_sent_twice_is_one_command(site: Website) -> None:
    seller = Browser(site).sign_in("seller", order_id=1005)
    form = seller.form("npb.file")
    body = urlencode(form["fields"]).encode()
    for _ in range(2):
        seller.open(form["action"], body)
        assert "Done" in seller.text
    assert site.count(AlertRow, order_id=1005) == 1
    changed = urlencode(form["fields"] | {"comment": "other"}).encode()
    assert seller.open(form["action"], changed).page.status == 409


def test_answer_that_comes_late_is_shown_when_it_is_there(site: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.pages.DEFAULT_WAIT_SECONDS", 0)
    seller = Browser(site).sign_in("seller", order_id=1006)
    site.paused.set()
    seller.send("npb.file")
    assert "Your command is accepted" in seller.text
    assert 'http-equiv="refresh"' in seller.page.text
    site.resume()
    wait_until(lambda: "Done" in seller.open(seller.path).text)


# -- what must not work ------------------------------------------------------------------------------------------------


def test_script_in_every_text_is_shown_as_text(site: Website) -> None:
    with site.database.transaction() as conn:
        conn.exec_driver_sql("UPDATE unwind.members SET handle = '<script>' WHERE member_id = 'seller'")
    seller, buyer = Browser(site).sign_in("seller", order_id=1004), Browser(site).sign_in("buyer")
    seller.send("ocr.file", reason="S_OTHER", comment=SCRIPT * 2)
    buyer.open("/problem-order/1004")
    staff = Browser(site).sign_in(SCRIPT[:40], staff=True).open("/problem-order/1004")
    paths = ("/problem-order?order=<script>alert(1)</script>", "/problem-order/<script>", "/problem-order/1?answer=<b>")
    assert SCRIPT in staff.text
    others = [Browser(site, seller.cookie).open(path.replace("<", "%3C")) for path in paths]
    for reader in (seller, buyer, staff, *others):
        assert reader.parsed.scripts == 0
        assert "<script" not in reader.page.text
        assert "script-src" not in reader.page.headers["content-security-policy"]
        assert "default-src 'none'" in reader.page.headers["content-security-policy"]


def test_link_works_once_and_only_as_it_was_signed(site: Website) -> None:
    now = int(time.time())  # noqa: TID251 - the marketplace's clock
    good = link("seller")
    last = "AEIMQUYcgkosw048"
    twin = good[:-1] + next(c for c in last if c != good[-1])
    assert Browser(site).open(f"/problem-order/sign-in?token={good}").page.status == 200
    unsigned = jwt.encode({"sub": "seller", "iat": now, "exp": now + 60}, None, "none")
    session = Browser(site).sign_in("buyer").cookie.partition("=")[2]
    for token in (
        good,
        twin,
        good.rpartition(".")[0] + ".",
        link("seller", secret="x" * 32),
        link("seller", iat=now - 2000, exp=now - 1000),
        link("seller", exp=now + 901),
        link("seller", iat=now + 3600, exp=now + 4000),
        link("seller", exp="soon"),
        link("two\nlines"),
        link(""),
        unsigned,
        session,
        "x",
        "",
    ):
        stranger = Browser(site).open(f"/problem-order/sign-in?token={token}")
        assert stranger.page.status == 401, token
        assert not stranger.cookie
    assert Browser(site, f"unwind_session={good}").open("/problem-order").page.status == 401


def test_cookie_is_for_this_page_only(site: Website) -> None:
    reply = site.request("GET", f"/problem-order/sign-in?token={link('seller')}")
    cookie = reply.headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/problem-order"} <= set(cookie.split("; "))
    assert "secure" not in cookie
    outside = site.request("GET", f"/problem-order/sign-in?token={link('seller')}", None, {"Host": "shop.example"})
    assert "secure" in outside.headers["set-cookie"].lower()
    assert site.request("GET", "/v1/orders/1001", None, {"Cookie": cookie.partition(";")[0]}).status == 401


def test_strangers_order_is_unknown(site: Website) -> None:
    stranger = Browser(site).sign_in("stranger")
    unknown = stranger.open("/problem-order/999999").page
    for path in ("/problem-order/1001", "/problem-order/1001/edit", "/problem-order/1001/edit/1001-1"):
        theirs = stranger.open(path).page
        assert (theirs.status, theirs.text) == (404, unknown.text)
    assert stranger.open("/problem-order/bills/seller/2026-11").page.status == 404
    assert stranger.open("/problem-order/forecast").page.status == 404
    assert Browser(site).sign_in("nobody").open("/problem-order/1001").page.status == 404


def test_buyer_has_no_pages_of_the_seller(site: Website) -> None:
    buyer = Browser(site).sign_in("buyer")
    assert buyer.open("/problem-order/1001/edit").page.status == 404
    assert buyer.open("/problem-order/bills/seller/2026-11").page.status == 404


def test_form_needs_the_token_of_its_session(site: Website) -> None:
    victim, attacker = Browser(site).sign_in("seller", order_id=1008), Browser(site).sign_in("seller", order_id=1008)
    before = site.count(SubmissionRow)
    for csrf in ("", "x", attacker.parsed.forms[0]["fields"]["csrf"], "é"):
        assert victim.open("/problem-order/1008").send("ocr.file", csrf=csrf).page.status == 403
    victim.open("/problem-order/1008")
    assert victim.send("ocr.file", "csrf").page.status == 403
    unsigned = Browser(site).open("/problem-order/1008/actions/ocr.file", b"csrf=x")
    assert unsigned.page.status == 401
    assert site.count(SubmissionRow) == before
    assert victim.open("/problem-order/sign-out", b"csrf=x").page.status == 403


def test_answer_of_another_session_is_not_shown(site: Website) -> None:
    requests = site.stored(RequestRow, RequestRow.request_id.startswith("web."))
    request_id = requests[0].request_id if requests else None
    other = Browser(site).sign_in("stranger" if request_id is None else "buyer")
    assert "Done" not in other.open(f"/problem-order/1004?answer={request_id}").text


def test_staff_read_every_order_and_change_none(site: Website) -> None:
    staff = Browser(site).sign_in("Kim", staff=True)
    staff.open("/problem-order/1003")
    assert "seller: cancel the order".lower() in staff.text.lower()
    assert staff.actions() == set()
    csrf = staff.parsed.forms[0]["fields"]["csrf"]
    changed = staff.open("/problem-order/1003/actions/npb.file", urlencode({"csrf": csrf}).encode())
    assert changed.page.status == 403
    assert "alerts unlock until" in staff.open("/problem-order/forecast").text
    assert "Total" in staff.open("/problem-order/bills/seller/2026-11").text


def test_every_field_has_a_label_and_every_page_a_heading(site: Website) -> None:
    seller = Browser(site).sign_in("seller")
    for path in ("/problem-order", "/problem-order/1006", "/problem-order/1004"):
        seller.open(path)
        assert seller.page.text.count("<h1>") == 1
        assert seller.parsed.unlabelled == []
        assert '<html lang="en">' in seller.page.text


def test_demo_page_is_only_in_the_demo(site: Website) -> None:
    assert Browser(site).open("/problem-order/demo").page.status == 404
