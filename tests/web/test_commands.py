"""Tests of commands by HTTP: answers, waiting, idempotency, keys and bad requests."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import logging
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import psycopg
import pytest
from structlog.testing import capture_logs

from models import api_keys, feed
from models.alerts import AlertRow
from models.api_keys import ApiKeyRow
from models.submissions import SubmissionReceipt, SubmissionRow
from tasks.declarations import all_commands
from tasks.schemas import answer_schema
from tests.bad_input import GOOD, MARK, bad_arguments, replace_argument
from tests.plugins.market import Market
from tests.plugins.website import Website, website
from tests.waiting import wait_until
from web import server
from web.submitter import Submitter
from workers.embedded.client import ServerUrls

ORDERS = range(1001, 1013)


def seed(market: Market) -> None:
    for order_id in ORDERS:
        market.order(order_id)


@pytest.fixture(scope="module")
def site(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[Website]:
    with website(servers, admin, template_database, seed, max_body_bytes=100_000) as running:
        yield running


def an_alert(order_id: int | str, **fields: Any) -> dict[str, Any]:
    return {"order_id": order_id, "member_id": "seller"} | fields


def test_done_and_refused_are_answers_with_status_200(site: Website) -> None:
    done = site.command("npb.file", an_alert(1001), "http-1001")
    assert (done.status, done.json["outcome"], done.json["request_id"]) == (200, "done", "http-1001")
    jsonschema.validate(done.json, answer_schema())
    refused = site.command("orders.cancel", an_alert(1001))
    assert (refused.status, refused.json["code"]) == (200, "TOO_EARLY")
    assert refused.json["possible_from"] is not None


def test_same_key_gets_the_first_answer_again(site: Website) -> None:
    first = site.command("npb.file", an_alert(1002), "again-1").json
    again = site.command("npb.file", an_alert(1002), "again-1")
    assert (again.status, again.json) == (200, first | {"replayed": True})
    quoted = site.command("npb.file", an_alert("1002", request_id="again-1"), '"again-1"')
    assert quoted.json == again.json
    assert site.count(AlertRow, order_id=1002) == 1


@pytest.mark.parametrize("stored", [True, False])
def test_same_key_with_other_arguments_is_a_conflict(site: Website, stored: bool) -> None:
    key = f"conflict-{stored}"
    if stored:
        site.command("npb.file", an_alert(1003), key)
    else:
        site.paused.set()
        assert site.command("npb.respond", an_alert(1003, comment="x"), key, wait=0).status == 202
        site.resume()
    reply = site.command("npb.file", an_alert(1004), key)
    assert (reply.status, reply.headers["content-type"]) == (409, "application/problem+json")
    assert (reply.json["outcome"], reply.json["code"], reply.json["status"]) == ("conflict", "REQUEST_ID_REUSED", 409)


def test_answer_that_does_not_come_in_time_is_at_its_location(site: Website) -> None:
    site.paused.set()
    reply = site.command("npb.file", an_alert(1005), "late-1", wait=0)
    assert (reply.status, reply.headers["location"]) == (202, "/v1/requests/late-1")
    assert reply.json == {"request_id": "late-1", "state": "waiting"}
    assert site.get("/v1/requests/late-1", key="submit").json["state"] == "waiting"
    site.resume()
    answered = wait_until(lambda: (r := site.get("/v1/requests/late-1", key="submit").json)["answer"] and r)
    assert (answered["state"], answered["answer"]["outcome"]) == ("answered", "done")
    assert site.get("/v1/requests/nothing-1", key="submit").status == 404


def test_caller_that_waits_is_answered_when_the_command_is_executed(site: Website) -> None:
    site.paused.set()
    with ThreadPoolExecutor(1) as thread:
        reply = thread.submit(site.command, "npb.file", an_alert(1006), "waits-1")
        wait_until(lambda: site.count(SubmissionRow, request_id="waits-1"))
        site.resume()
        assert reply.result().json["outcome"] == "done"


@pytest.mark.guarantee("P1")
def test_hundred_callers_with_one_key_have_one_effect(site: Website) -> None:
    barrier = threading.Barrier(20)

    def send_five(_thread: int) -> list[Any]:
        barrier.wait(30)
        return [site.command("npb.file", an_alert(1007, comment="once"), "crowd-1").json for _ in range(5)]

    with ThreadPoolExecutor(20) as threads:
        answers = [answer for batch in threads.map(send_five, range(20)) for answer in batch]
    assert len({json.dumps(answer | {"replayed": None}, sort_keys=True) for answer in answers}) == 1
    assert site.count(AlertRow, order_id=1007) == 1


def test_callers_at_the_same_time_get_their_own_answers(site: Website) -> None:
    with ThreadPoolExecutor(30) as threads:
        replies = list(threads.map(lambda n: site.command("npb.file", an_alert(n), f"own-{n}"), range(5001, 5031)))
    assert [r.json["order_id"] for r in replies] == list(range(5001, 5031))
    assert {r.json["code"] for r in replies} == {"ORDER_UNKNOWN"}


def test_requests_that_arrive_one_after_another_share_a_commit(site: Website) -> None:
    sizes = []

    class RecordingSubmitter(Submitter):
        def _submit_batch(self, commands: list[tuple[str, str, str]]) -> list[SubmissionReceipt]:
            sizes.append(len(commands))
            return super()._submit_batch(commands)

    async def submit_in_turn() -> None:
        submitter = RecordingSubmitter(site.database, site.database.address)

        async def submit(turn: int) -> None:
            for _ in range(turn):
                await asyncio.sleep(0)
            await submitter.submit("npb.file", json.dumps(an_alert(1)), f"shared-{turn}", 0)

        await asyncio.gather(*(submit(turn) for turn in range(10)))

    with ThreadPoolExecutor(1) as thread:  # a browser of another test may have left a loop running in this one
        thread.submit(lambda: asyncio.run(submit_in_turn())).result(60)
    assert sizes == [10]


@pytest.mark.parametrize("task", ["npb.respond", "removals.request"])
def test_wrong_arguments_are_named_and_not_repeated(site: Website, task: str) -> None:
    for path, bad in bad_arguments(GOOD[task]):
        reply = site.command(task, replace_argument(GOOD[task], path, bad))
        assert reply.headers["content-type"] == "application/problem+json", (path, bad)
        assert reply.status == (413 if bad == MARK * 2_500_000 else 422), (path, bad)
        assert MARK not in reply.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b"\xff\xfe", 422),
        (b'{"order_id": 1, "member_id": "\\ud800"}', 422),
        (b'{"order_id": 1, "member_id": "a\\u0000"}', 422),
        (b"[" * 50_000, 422),
        (b'{"order_id": ' + b"9" * 5000 + b"}", 422),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, 422),
        (b'{"lines": [' + b"1," * 49_000 + b"1]}", 422),
        (b'{"order_id": 1, "member_id": "' + b"x" * 100_000 + b'"}', 413),
    ],
)
def test_hostile_bodies_are_refused(site: Website, body: bytes, status: int) -> None:
    reply = site.command("npb.file", body)
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert reply.json["status"] == status


def test_body_without_a_length_is_limited_too(site: Website) -> None:
    address = urlsplit(site.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    headers = {"Authorization": f"Bearer {site.new_key('submit')}", "Content-Type": "application/json"}
    chunks = (b"x" * 10_000 for _ in range(11))
    connection.request("POST", "/v1/commands/npb.file", chunks, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def read_until_closed(site: Website, parts: Iterable[bytes]) -> bytes:
    """Send parts over a connection of its own; return everything until the server closes it."""
    address = urlsplit(site.url)
    with socket.create_connection((str(address.hostname), address.port or 80), timeout=60) as connection:
        received = b""
        try:
            for part in parts:
                connection.sendall(part)
            while data := connection.recv(65536):
                received += data
        except ConnectionError:  # it was closed while we sent
            pass
        return received


def test_responses_do_not_wait_for_the_acknowledgement_of_their_headers() -> None:
    # With Nagle's algorithm the body stays until the client acknowledges the headers, which it delays by 40 ms.
    with server.bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("first_line", "extra", "expected"),
    [
        ("POST /v1/commands/npb.file", "Expect: 100-continue\r\nContent-Length: 2\r\n", ["100", "422"]),
        ("POST /v1/commands/npb.file", "Content-Length: 2\r\n", ["422"]),
        ("HEAD /v1/events", "", ["405"]),
    ],
)
def test_responses_are_complete(site: Website, first_line: str, extra: str, expected: list[str]) -> None:
    site.command("npb.file", {})  # makes the key
    headers = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {site.keys['submit']}\r\n{extra}"
    body = b"{}" if "Content-Length" in extra else b""
    received = read_until_closed(
        site, [f"{first_line} HTTP/1.1\r\nContent-Type: application/json\r\n{headers}\r\n".encode() + body]
    )
    assert re.findall(rb"^HTTP/1\.1 (\d+)", received, re.MULTILINE) == [status.encode() for status in expected]
    assert received.endswith(b"\r\n\r\n" if first_line.startswith("HEAD") else b"}")


def test_headers_without_an_end_are_refused(site: Website) -> None:
    endless = iter(lambda: b"X-Filler: " + b"x" * 8000 + b"\r\n", None)
    received = read_until_closed(site, itertools.chain([b"GET /healthz HTTP/1.1\r\nHost: x\r\n"], endless))
    assert received.startswith(b"HTTP/1.1 400") or not received  # a reset may overtake the answer
    assert site.get("/healthz").status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_whose_headers_do_not_come_is_closed(
    site: Website, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(server, "HEADER_TIMEOUT_SECONDS", 0.5)
    assert read_until_closed(site, [sent]) == b""


def test_headers_in_pieces_and_pipelined_requests_are_answered(site: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_HEADER_BYTES", 200)
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = read_until_closed(site, [*(bytes([byte]) for byte in one), one * 10, last[:9], last[9:]])
    assert received.count(b"HTTP/1.1 200") == 12


def test_requests_of_another_form_are_refused(site: Website) -> None:
    json_type = {"Content-Type": "application/json"}
    path = "/v1/commands/npb.file"
    assert site.request("POST", path, b"{}", {"Content-Type": "text/plain"}, key="submit").status == 415
    assert site.request("POST", "/v1/commands/npb.unlock", b"{}", json_type, key="submit").status == 404
    assert site.request("GET", path, key="submit").status == 405
    assert site.request("POST", path, b"{}", json_type | {"Idempotency-Key": "a b"}, key="submit").status == 400
    assert site.command("npb.file", an_alert(1, request_id="one"), "two").status == 400
    assert site.get("/v1/nothing").status == 404


# -- keys --------------------------------------------------------------------------------------------------------------


def test_request_without_a_valid_key_is_refused(site: Website) -> None:
    right = site.new_key("staff")
    key_id, secret = right.split(".")
    wrong = (None, "x", f"{key_id}.", f"{key_id}.{secret}x", f"0.{secret}", f"{key_id}.{secret[:-1]}", "ü.é".encode())
    for key in wrong:
        word = key.decode("latin-1") if isinstance(key, bytes) else key
        reply = site.get("/v1/orders/1001", key=word)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer"), key
        assert reply.json["detail"] == "A valid API key is required."
        assert site.command("npb.file", an_alert(1), key=word).status == 401
    assert site.get("/v1/orders/1001", key=right).status == 200


def test_revoked_key_is_refused_and_its_use_is_visible(site: Website) -> None:
    key = site.new_key("read", "dashboard")
    assert site.get("/v1/orders/1001", key=key).status == 200
    assert site.stored_one(ApiKeyRow, name="dashboard").last_used_at is not None
    with site.read() as conn:
        assert api_keys.revoke_key(conn, "dashboard", site.database.clock.now(conn))
    wait_until(lambda: site.get("/v1/orders/1001", key=key).status == 401)


def test_requests_that_come_together_share_the_lookup_of_their_key(
    site: Website, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups: list[str] = []
    load = api_keys.load_key

    def load_slowly(conn: Any, key_id: str) -> Any:
        lookups.append(key_id)
        arrived.wait(30)
        return load(conn, key_id)

    arrived = threading.Event()
    key = site.new_key("read")
    monkeypatch.setattr(api_keys, "load_key", load_slowly)
    with ThreadPoolExecutor(8) as threads:
        replies = [threads.submit(site.get, "/v1/orders/1001", key=key) for _ in range(8)]
        wait_until(lambda: lookups)
        arrived.set()
        assert {reply.result().status for reply in replies} == {200}
    assert lookups == [key.split(".")[0]]


def test_scope_limits_a_key(site: Website) -> None:
    assert site.command("npb.file", an_alert(1), key="read").status == 403
    assert site.get("/v1/orders/1001", key="submit").status == 403
    by_staff = {"member_id": "stranger", "staff": "Kim", "comment": "closed"}
    assert site.command("members.terminate", by_staff, key="submit").status == 403
    assert site.command("members.terminate", by_staff, key="staff").json["outcome"] == "done"
    assert site.get("/v1/orders/1001", key="staff").status == 200


def test_stored_key_is_a_hash(site: Website) -> None:
    key = site.new_key("read")
    assert key.partition(".")[2] not in str(site.content(ApiKeyRow))


def test_every_command_has_its_path_in_the_document(site: Website) -> None:
    document = site.get("/openapi.json", key=None).json
    assert document["openapi"].startswith("3.1")
    assert {f"/v1/commands/{task}" for task in all_commands()} < set(document["paths"])


def test_access_log_has_the_route_and_nothing_that_was_sent(site: Website) -> None:
    with capture_logs() as entries:
        answer = site.command("orders.cancel", an_alert(1012, comment="between us"), "a-logged-id")
        site.get("/v1/orders/1012?at=2031-05-06T07:08:09Z")
        wait_until(lambda: len([entry for entry in entries if entry["event"] == "request"]) == 2)
    assert answer.status in (200, 422)
    submission, reading = (entry for entry in entries if entry["event"] == "request")
    assert (submission["method"], submission["route"], submission["task"]) == (
        "POST",
        "/v1/commands/{task}",
        "orders.cancel",
    )
    assert (reading["method"], reading["route"], reading["status"]) == ("GET", "/v1/orders/{order_id}", 200)
    written = json.dumps(entries, default=str)
    sent = ["between us", "a-logged-id", "1012", "2031-05", *site.keys.values()]
    assert [text for text in sent if text in written] == []


def test_failure_is_logged_without_its_text(
    site: Website, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    private = "what somebody wrote"

    def fail(*_: Any, **_options: Any) -> None:
        raise RuntimeError(private)

    monkeypatch.setattr(feed, "events_after", fail)
    with capture_logs() as entries, caplog.at_level(logging.DEBUG):
        reply = site.get("/v1/events")
    assert (reply.status, reply.headers["content-type"]) == (500, "application/problem+json")
    (failure,) = (entry for entry in entries if entry["event"] == "request_failed")
    assert failure["error"] == "RuntimeError"
    assert "in fail" in failure["exception"]
    assert private not in f"{entries} {caplog.text} {reply.text}"
