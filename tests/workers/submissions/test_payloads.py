"""Tests of long, deep, malformed and random payloads submitted by SQL."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.payload_limits import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_DEPTH, MAX_PAYLOAD_PARTS, has_too_many_parts
from models.submissions import SubmissionRow
from tests.plugins.market import FILED, Market
from tests.plugins.sql_interface import submit_command, submit_text
from tests.workers.submissions.submitting import fetch_receipt, outcome_of, set_due

UNREADABLE = {
    "an integer of 4,301 digits": '{"order_id": ' + "9" * 4301 + ', "member_id": "seller"}',
    "an integer of 100,000 digits": '{"order_id": ' + "9" * 100_000 + ', "member_id": "seller"}',
    "1e5000": '{"order_id": 1e5000, "member_id": "seller"}',
    "1e131071": '{"order_id": 1e131071, "member_id": "seller"}',
    "1e-16383": '{"order_id": 1e-16383, "member_id": "seller"}',
    "seven levels": '{"order_id": 1003, "member_id": ' + "[" * 7 + "]" * 7 + "}",
}


@pytest.mark.guarantee("P8")
@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE)
def test_unparsable_payload_is_answered_invalid_and_stops_no_other(
    market: Market, caller: psycopg.Connection, payload: str
) -> None:
    """P8: the next command of its batch is done."""
    market.order(1003)
    market.at(FILED)
    assert submit_text(caller, "npb.file", payload, "absurd")["accepted"]
    submit_command(caller, "npb.file", {"order_id": 1003, "member_id": "seller"}, "healthy")
    set_due(caller)
    assert market.done("submissions.drain") == {"taken": 2}
    assert outcome_of(market, "absurd") == ("answered", "invalid", None)
    assert outcome_of(market, "healthy") == ("answered", "done", None)


HUGE = {
    "too long": ('{"comment": "' + "x" * MAX_PAYLOAD_BYTES + '"}', "PAYLOAD_TOO_LARGE"),
    "lists": ('{"orders": [' + ",".join(["[]"] * 5_000_000) + "]}", "PAYLOAD_TOO_LARGE"),
    "numbers": ('{"orders": [' + ",".join(["1"] * 8_000_000) + "]}", "PAYLOAD_TOO_LARGE"),
    "texts": ('{"orders": [' + ",".join(['""'] * 5_000_000) + "]}", "PAYLOAD_TOO_LARGE"),
    "escaped quotes that never end": ('{"comment": "' + '\\"' * 8_000_000, "PAYLOAD_INVALID"),
    "brackets that never end": ("[" * 16_000_000, "PAYLOAD_TOO_LARGE"),
    "1,500 levels": ('{"a":' * 1_500 + "1" + "}" * 1_500, "PAYLOAD_TOO_DEEP"),
    "24,000 levels": ('{"a":' + "[" * 24_000 + "]" * 24_000 + "}", "PAYLOAD_TOO_DEEP"),
    "levels that never end": ('{"a":' + "[" * 45_000, "PAYLOAD_TOO_DEEP"),
    "NUL": ('{"comment": "\\u0000"}', "PAYLOAD_INVALID"),
    "an unpaired surrogate": ('{"comment": "\\ud800"}', "PAYLOAD_INVALID"),
    "no JSON": ("hello", "PAYLOAD_INVALID"),
    "nothing": ("", "PAYLOAD_INVALID"),
    "NaN": ('{"order_id": NaN}', "PAYLOAD_INVALID"),
}


@pytest.mark.parametrize(("payload", "code"), HUGE.values(), ids=HUGE)
def test_large_deep_or_malformed_payload_is_refused_at_submission(
    market: Market, caller: psycopg.Connection, payload: str, code: str
) -> None:
    """In SQL, without an error, with memory of the payload's size."""
    before = time.monotonic()
    assert submit_text(caller, "orders.cancel_many", payload, "r") == {
        "request_id": "r",
        "accepted": False,
        "code": code,
    }
    assert time.monotonic() - before < 20
    caller.commit()
    assert market.count(SubmissionRow) == 0


@pytest.mark.parametrize("number", ["1e131071", "-1e131071", "1e-16383", "0." + "1" * 5000, "7" * 5000])
def test_jsonb_that_expands_a_thousandfold_is_refused(caller: psycopg.Connection, number: str) -> None:
    """Twelve bytes of jsonb can be 128 KB of text."""
    receipt = fetch_receipt(
        caller,
        "SELECT unwind.submit_command('orders.cancel_many', jsonb_build_object('orders', "
        "jsonb_agg(CAST(%s AS jsonb))), 'r') "
        "FROM generate_series(1, 90000)",
        number,
    )
    assert receipt["accepted"] is False
    assert receipt["code"] in ("PAYLOAD_INVALID", "PAYLOAD_TOO_LARGE")


def test_payload_with_commas_and_brackets_in_text_is_accepted(market: Market, caller: psycopg.Connection) -> None:
    """Only brackets and commas outside strings count."""
    comment = "[],{}" * 400
    items = [{"order_id": n, "member_id": "seller", "comment": comment + '"\\'} for n in range(1, 1001)]
    raw = json.dumps({"orders": items})
    assert not has_too_many_parts(raw.encode())
    assert submit_text(caller, "orders.cancel_many", raw, "words")["accepted"]
    set_due(caller)
    market.at(FILED).done("submissions.drain")
    assert outcome_of(market, "words") == ("answered", "done", None)


_WORDS = st.sampled_from(("order_id", "member_id", "request_id", "comment", "orders", "removal_id", "draft_id"))
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated_payloads(draw: st.DrawFn) -> str:
    """JSON with replaced characters, long numbers, and malformed texts."""
    text = json.dumps(draw(st.dictionaries(_WORDS, _JSON, max_size=5)), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(("9" * 4400, "1e9999", "[" * 30, "\\u0000", '"', "\\", ",", "}", "NaN", "\u2028")))
        text = text[:at] + piece + text[at + draw(st.integers(0, 2)) :]
    return text


def _is_answered_or_refused(market: Market, caller: psycopg.Connection, payloads: list[str]) -> None:
    accepted = []
    for n, payload in enumerate(payloads):
        answer = submit_text(
            caller, "npb.file", payload.encode("utf-8", "replace").decode().replace("\x00", ""), f"any{n}"
        )
        assert answer["accepted"] is (answer["code"] is None)
        accepted += [f"any{n}"] if answer["accepted"] else []
    set_due(caller)
    market.at(FILED).done("submissions.drain")
    for request_id in accepted:
        assert market.command_answer(request_id).state == "answered"
    with caller.transaction():
        caller.execute("ALTER TABLE unwind.submissions DISABLE TRIGGER USER")
        caller.execute("DELETE FROM unwind.submissions")
        caller.execute("ALTER TABLE unwind.submissions ENABLE TRIGGER USER")
    caller.commit()


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(payloads=st.lists(mutated_payloads() | st.text(max_size=50), min_size=1, max_size=5))
def test_any_payload_is_refused_or_answered(market: Market, caller: psycopg.Connection, payloads: list[str]) -> None:
    _is_answered_or_refused(market, caller, payloads)


@pytest.mark.long
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(payloads=st.lists(mutated_payloads() | st.text(max_size=50), min_size=1, max_size=5))
def test_thousands_of_payloads_are_refused_or_answered(
    market: Market, caller: psycopg.Connection, payloads: list[str]
) -> None:
    _is_answered_or_refused(market, caller, payloads)


@settings(max_examples=300, deadline=None)
@given(_JSON)
def test_counted_parts_match_parsed_parts(document: Any) -> None:
    """Counting without parsing agrees with the parsed document."""

    def parts(value: Any) -> int:
        if not isinstance(value, dict | list):
            return 0
        inner = value.values() if isinstance(value, dict) else value
        return 2 + max(0, len(value) - 1) + sum(map(parts, inner))

    counted = parts(document)
    with pytest.MonkeyPatch.context() as patched:
        for limit, too_many in ((counted, False), (counted - 1, True)):
            patched.setattr("models.payload_limits.MAX_PAYLOAD_PARTS", limit)
            for ascii_only in (True, False):
                raw = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
                assert has_too_many_parts(raw) is too_many


def test_depth_and_parts_at_their_bounds(caller: psycopg.Connection) -> None:
    deep = '{"a":' * (MAX_PAYLOAD_DEPTH - 1) + "1" + "}" * (MAX_PAYLOAD_DEPTH - 1)
    assert submit_text(caller, "npb.file", deep, "deep")["accepted"]
    assert submit_text(caller, "npb.file", '{"a":' + deep + "}", "deeper")["code"] == "PAYLOAD_TOO_DEEP"
    wide = '{"a":[' + ",".join(["1"] * (MAX_PAYLOAD_PARTS - 3)) + "]}"
    assert submit_text(caller, "npb.file", wide, "wide")["accepted"]
    assert submit_text(caller, "npb.file", wide.replace("[", "[1,"), "wider")["code"] == "PAYLOAD_TOO_LARGE"
