"""Tests of Flower's pages, its access control and its read-only mode, started as `./run up` starts it.

The pages are read over HTTP, and in Chromium where it is installed.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from flower import urls
from playwright.sync_api import Error

from tests.plugins.market import Market
from tests.plugins.upstream import START_TIMEOUT_SECONDS, Installation, temporary_installation
from tests.waiting import wait_until
from workers.embedded.client import ServerUrls
from workers.local.process_specs import WORKER_GROUPS, flower_program, worker_program
from workers.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LOGIN = "ops:a-long-secret"
PRIVATE = "very private words"
PAGES = ["/", "/workers", "/tasks", "/broker", "/task/of-nobody", "/worker/of-nobody", "/tasks/datatable?draw=1"]
OPEN = ["/healthcheck", "/metrics"]
API = sorted({str(job.regex.pattern if hasattr(job, "regex") else job[0]) for job in urls.handlers})
API = [re.sub(r"\(\.[+*]\)\$?", "npb.remove", pattern).rstrip("$") for pattern in API if pattern.startswith("/api/")]


def seed(market: Market) -> None:
    for order_id in (1003, 1004, 1005):
        market.order(order_id)
    market.done("removals.request", order_id=1003, member_id="buyer", lines=[{"line_no": 1, "quantity": 1}])
    assert market.simulation.clock.instant is not None
    market.at(market.simulation.clock.instant + timedelta(days=13))
    for order_id in (1003, 1004):
        market.done("npb.file", order_id=order_id, member_id="seller")
    market.at(market.simulation.clock.instant + timedelta(days=6))
    market.done("npb.file", order_id=1005, member_id="seller")


@pytest.fixture(scope="module")
def installation(
    servers: ServerUrls, admin: psycopg.Connection, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with temporary_installation(servers, admin, template_database, tmp_path_factory.mktemp("flower"), seed) as running:
        running.settings = Settings.model_validate(
            running.settings.environment() | {"UNWIND_FLOWER_LOGIN": LOGIN, "UNWIND_CONCURRENCY": "1"}
        )
        for group in WORKER_GROUPS:
            running.supervisor.start(worker_program(running.settings, group))
        running.supervisor.wait_ready(START_TIMEOUT_SECONDS)
        yield running


@pytest.fixture(scope="module")
def flower_url(installation: Installation) -> str:
    program, address = flower_program(installation.settings)
    installation.supervisor.start(program)
    installation.supervisor.wait_ready(START_TIMEOUT_SECONDS, ["flower"])
    with installation.client() as client:  # Flower shows only events since its start

        def is_listening() -> bool:
            client.send_task("orders.options", kwargs={"order_id": 1, "member_id": "buyer"}, queue="commands").get(10)
            return bool(rows(address, "name:orders.options state:SUCCESS"))

        wait_until(is_listening)
    return address


def request(url: str, *, login: str | None = LOGIN, method: str = "GET", data: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, data, method=method)
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def rows(address: str, search: str) -> list[dict[str, Any]]:
    query = f"draw=1&start=0&length=100&search[value]={quote(search)}&order[0][column]=0&order[0][dir]=desc"
    status, page = request(f"{address}tasks/datatable?{query}&columns[0][data]=received")
    assert status == 200, page
    jobs: list[dict[str, Any]] = json.loads(page)["data"]
    return jobs


# -- access ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_pages_require_the_login(flower_url: str, page: str) -> None:
    assert request(flower_url.rstrip("/") + page, login=None)[0] == 401
    assert request(flower_url.rstrip("/") + page, login="ops:guessed")[0] == 401
    assert request(flower_url.rstrip("/") + page)[0] in (200, 400, 404)  # an unknown user, and an incomplete header


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("call", API)
def test_api_is_closed_with_and_without_a_login(flower_url: str, call: str, method: str) -> None:
    body = b'{"kwargs": {"order_id": 1003, "staff": "me"}}' if method == "POST" else None
    assert request(flower_url.rstrip("/") + call, login=None, method=method, data=body)[0] in (401, 403)
    assert request(flower_url.rstrip("/") + call, method=method, data=body)[0] == 403


@pytest.mark.parametrize("page", OPEN)
def test_public_pages_contain_nothing_about_orders(flower_url: str, page: str) -> None:
    status, body = request(flower_url.rstrip("/") + page, login=None)
    assert status == 200
    assert "1003" not in body
    assert "s-881" not in body


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
OUTSIDE = [
    "/static/../../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
    "/static//etc/passwd",
    "/static/../views/base.py",
    "/static/%00",
    "//etc/passwd",
]


def raw(flower_url: str, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(flower_url).netloc, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("page", [*PAGES, *API])
def test_every_method_requires_the_login(flower_url: str, page: str, method: str) -> None:
    forged = {
        "Host": "127.0.0.1",
        "X-Forwarded-For": "127.0.0.1",
        "X-Real-Ip": "127.0.0.1",
        "Origin": "http://localhost",
    }
    for headers in ({}, forged, {"X-Http-Method-Override": "GET"}):
        status, body = raw(flower_url, method, page, **headers)
        assert status in (401, 403, 405) or (method, status, body) == ("OPTIONS", 204, b"")


@pytest.mark.parametrize("path", OUTSIDE)
def test_static_paths_stay_below_the_static_folder(flower_url: str, path: str) -> None:
    login = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
    for headers in ({}, {"Authorization": login}):
        status, body = raw(flower_url, "GET", path, **headers)
        assert status >= 400
        assert b"root:" not in body
        assert b"import" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("page", [*PAGES, *OPEN])
def test_login_allows_no_actions(flower_url: str, page: str, method: str) -> None:
    login = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
    assert raw(flower_url, method, page, Authorization=login)[0] in (400, 403, 404, 405)


# -- content -----------------------------------------------------------------------------------------------------------


def test_job_is_found_by_its_order(installation: Installation, flower_url: str) -> None:
    forged = {"argsrepr": f"('{PRIVATE}',)", "kwargsrepr": "<script>alert(1)</script>", "shadow": "<script>x</script>"}
    with installation.client() as client:
        sent = client.send_task(
            "npb.respond",
            kwargs={"order_id": 1005, "member_id": "buyer", "comment": PRIVATE},
            queue="commands",
            **forged,
        )
        assert sent.get(timeout=30)["outcome"] == "done"
    (row,) = wait_until(lambda: [job for job in rows(flower_url, "kwargs:order_id=1005") if job["state"] == "SUCCESS"])
    assert (row["uuid"], row["result"]) == (sent.id, "done")
    assert row["kwargs"] == "{'order_id': 1005, 'member_id': 'buyer'}"
    page = request(f"{flower_url}task/{sent.id}")[1]
    for text in (page, str(row)):
        assert PRIVATE not in text
    assert "<script>x" not in page
    assert "<script>alert" not in page


def test_refusal_is_a_success_with_its_code(installation: Installation, flower_url: str) -> None:
    with installation.client() as client:
        client.send_task("orders.cancel", kwargs={"order_id": 1005, "member_id": "seller"}, queue="commands").get(30)
        client.send_task("orders.cancel", kwargs={"order_id": "1005 private"}, queue="commands").get(30)
    (row,) = wait_until(lambda: rows(flower_url, "result:TOO_EARLY"))
    assert (row["state"], row["result"]) == ("SUCCESS", "refused TOO_EARLY")
    assert wait_until(lambda: rows(flower_url, "result:invalid"))[0]["kwargs"] == "{}"


def test_idle_sweeps_do_not_hide_other_jobs(installation: Installation, flower_url: str) -> None:
    with installation.client() as client:
        for _ in range(3):
            client.send_task("npb.scan_open_alerts", queue="sweeps").get(timeout=30)
        client.send_task("orders.options", kwargs={"order_id": 77, "member_id": "buyer"}, queue="commands").get(30)
    wait_until(lambda: rows(flower_url, "kwargs:order_id=77"))
    sweeps = wait_until(lambda: rows(flower_url, "name:npb.scan_open_alerts"))
    assert [row["result"] for row in sweeps] == ["done unlocked=2"]


def test_jobs_are_still_listed_after_a_restart(installation: Installation, flower_url: str) -> None:
    with installation.client() as client:
        client.send_task("orders.options", kwargs={"order_id": 78, "member_id": "buyer"}, queue="commands").get(30)
    wait_until(lambda: rows(flower_url, "kwargs:order_id=78"))
    installation.supervisor.stop(["flower"])
    again = installation.settings.model_copy(update={"flower_port": int(flower_url.rstrip("/").rpartition(":")[2])})
    program, _ = flower_program(again)
    assert "a-long-secret" not in " ".join(program.command)
    installation.supervisor.start(program)
    installation.supervisor.wait_ready(START_TIMEOUT_SECONDS, ["flower"])
    assert rows(flower_url, "kwargs:order_id=78")
    assert {path.parent.name for path in installation.settings.flower_dir.glob("tasks*")} == {"flower"}


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Browser, flower_url: str) -> Iterator[Page]:
    user, _, password = LOGIN.partition(":")
    context = browser.new_context(
        base_url=flower_url,
        http_credentials={"username": user, "password": password, "send": "always"},
        viewport={"width": 1600, "height": 600},
        timezone_id="UTC",
        locale="en-GB",
    )
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.mark.browser
def test_browser_without_the_login_sees_nothing(browser: Browser, flower_url: str) -> None:
    context = browser.new_context(base_url=flower_url)
    try:
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            context.new_page().goto("/tasks")
    finally:
        context.close()


@pytest.mark.browser
def test_browser_shows_the_jobs_of_an_order(
    installation: Installation, flower_url: str, page: Page, picture: Callable[[Page, str], None]
) -> None:
    page.goto("/workers")
    for group in WORKER_GROUPS:
        page.get_by_role("row").filter(has_text=f"{group}@").get_by_text("Online").wait_for()
    picture(page, "flower-workers")

    with installation.client() as client:
        client.send_task("npb.scan_open_alerts", queue="sweeps").get(timeout=30)
        for task, about in (
            ("npb.respond", {"member_id": "stranger", "comment": PRIVATE}),
            ("orders.options", {"member_id": "seller"}),
            ("orders.cancel", {"member_id": "seller", "request_id": "story"}),
        ):
            client.send_task(task, kwargs={"order_id": 1003} | about, queue="commands").get(timeout=30)
    assert installation.answer_of("story")["effects"]["basis"] == "NPB"
    wait_until(lambda: len(rows(flower_url, "kwargs:order_id=1003")) == 3)
    page.goto("/tasks")
    page.get_by_role("searchbox").fill("kwargs:order_id=1003")
    table_rows = page.locator("#tasks-table tbody tr")
    page.get_by_text("refused NOT_A_PARTY").wait_for()
    page.wait_for_function("document.querySelectorAll('#tasks-table tbody tr').length === 3")
    assert all("1003" in text for text in table_rows.all_inner_texts())
    assert PRIVATE not in page.content()
    picture(page, "flower-order")

    page.goto("/broker")
    for queue in ("commands", "consequences", "notices", "sweeps"):
        page.get_by_role("cell", name=queue, exact=True).wait_for()
    picture(page, "flower-broker")


@pytest.mark.browser
def test_failed_job_shows_its_error_and_nothing_private(
    installation: Installation, flower_url: str, page: Page, picture: Callable[[Page, str], None]
) -> None:
    with installation.connect() as owner:
        owner.execute(
            "CREATE FUNCTION unwind.broken() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{PRIVATE}'; END $$"
        )
        owner.execute(
            "CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON unwind.sweeps "
            "FOR EACH ROW EXECUTE FUNCTION unwind.broken()"
        )
        try:
            with installation.client() as client:
                sent = client.send_task("reminders.scan", queue="sweeps")
                with pytest.raises(Exception, match="P0001"):
                    sent.get(timeout=30)
        finally:
            owner.execute("DROP FUNCTION unwind.broken CASCADE")
    wait_until(lambda: rows(flower_url, "state:FAILURE"))
    page.goto("/tasks")
    page.get_by_role("button", name="Failed").click()
    page.get_by_role("link", name=sent.id[:8]).first.click()
    page.get_by_text("FAILURE").first.wait_for()
    body = page.locator("#task-page").inner_text()
    assert "reminders.scan" in body
    assert "by tasks/sweeps.py" in body, body
    assert PRIVATE not in page.content()
    page.set_viewport_size({"width": 1440, "height": 1000})
    picture(page, "flower-failure")
