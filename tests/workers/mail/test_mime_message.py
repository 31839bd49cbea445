"""Snapshot tests of every email, and tests of how members' text is shown.

After a change of wording, `python -m tests.workers.mail.test_mime_message` regenerates the snapshots; read the
difference before committing it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policies.emails import NOTICES, compose_email
from policies.emails.context import EmailContext, format_email_timestamp
from policies.emails.email import email_from_json, render_plain_email, sanitize_email_line, sanitize_email_lines
from policies.statuses import Role
from tasks.mailer import OutgoingEmail
from tests.workers.mail.examples import FACTS, LATER
from workers.mail.mime_message import MailBranding, render_html_part, render_text_part

SNAPSHOTS = Path(__file__).parent / "snapshots"
BRANDING = MailBranding("Brick Market <no-reply@market.example>", "Brick Market", "https://market.example")
CREATED_AT = datetime(2026, 4, 4, 10, tzinfo=UTC)
WITHOUT_ORDER = ("bill_issued",)


def email_context(event: str, role: str, facts: dict[str, Any], zone: str = "UTC") -> EmailContext:
    order_id = None if event in WITHOUT_ORDER else 1003
    return EmailContext(event, role, order_id, facts, zone, buyer="" if order_id is None else "Bea", seller="Sam")


def outgoing(context: EmailContext) -> OutgoingEmail:
    return OutgoingEmail(
        message_id="0" * 32,
        event=context.event,
        order_id=context.order_id,
        email="reader@example.org",
        handle="Sam" if context.role == "seller" else "Bea",
        written_at=CREATED_AT,
        content=email_from_json(asdict(compose_email(context))),
    )


def render_sides(name: str) -> Iterator[tuple[str, str]]:
    sent = outgoing(email_context(*FACTS[name]))
    yield f"{name}.txt", f"Subject: {sent.content.subject}\n\n{render_text_part(sent, BRANDING)}"
    yield f"{name}.html", render_html_part(sent, BRANDING) + "\n"


@pytest.mark.parametrize("name", FACTS)
def test_email_matches_its_snapshot(name: str) -> None:
    """N1 to N22: plain text and HTML, for its reader."""
    for file, content in render_sides(name):
        assert (SNAPSHOTS / file).read_text(encoding="utf-8") == content, (
            "see the module's first lines for how to regenerate"
        )


@pytest.mark.parametrize("name", FACTS)
def test_email_names_no_field_and_no_command(name: str) -> None:
    email = compose_email(email_context(*FACTS[name]))
    assert not re.findall(r"\w+[_.][a-z]\w*", f"{email.subject}\n{render_plain_email(email)}")


def test_every_snapshot_has_an_example() -> None:
    assert {path.name for path in SNAPSHOTS.iterdir()} == {file for name in FACTS for file, _ in render_sides(name)}


def test_every_row_of_the_rules_and_every_event_has_an_example() -> None:
    """N1 to N22."""
    assert {event for event, _, _ in FACTS.values()} == set(NOTICES)
    assert {f"N{n}" for n in range(1, 23)} <= {f"N{int(name[1:3])}" for name in FACTS}


def test_every_notified_event_has_an_email() -> None:
    """N1 to N18: an event without a template would be parked."""
    root = Path(__file__).parents[3]
    names = set()
    for package in ("policies", "models", "tasks"):
        for path in (root / package).rglob("*.sql"):
            pairs = re.findall(r"THEN '([a-z_]+)' ELSE '([a-z_]+)' END AS notice", path.read_text(encoding="utf-8"))
            names |= {name for pair in pairs for name in pair}
        for path in (root / package).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            names |= set(
                re.findall(
                    r'\b(?:notify_party|notify_member|change_alert)\(\s*[^"\n]*\n?[^"\n]*\n?[^"\n]*"([a-z_]+)"', source
                )
            )
            names |= set(re.findall(r'\bnotice="([a-z_]+)"', source))
            names |= set(re.findall(r'"notices\.tell_(?:seller|buyer)", "([a-z_]+)"', source))
    assert {"ocr_filed", "npb_filed", "npb_unlocked", "order_cancelled", "bill_issued", "ocr_reminder"} <= names
    assert names <= set(NOTICES), names - set(NOTICES)


@pytest.mark.parametrize("event", NOTICES)
def test_emails_accept_missing_and_unknown_facts(event: str) -> None:
    """N1 to N18: facts differ between versions, and no email may be lost for it."""
    for role in {reader for notified, reader, _ in FACTS.values() if notified == event}:
        for facts in ({}, {"unheard_of": [1], "comment": None, "strike": None}):
            for order_id in (1003, None):
                email = compose_email(EmailContext(event, role, order_id, facts))
                body = f"{email.subject}\n{render_plain_email(email)}"
                assert email.happened
                assert "None" not in body
                assert "  " not in body
                assert "{" not in body


def test_only_the_seller_reads_about_the_fee() -> None:
    """N11: whatever facts the buyer's email has."""
    facts = FACTS["N11-order_cancelled-npb-seller"][2]
    for role, reads in ((Role.SELLER, True), (Role.BUYER, False)):
        assert ("fee" in render_plain_email(compose_email(email_context("order_cancelled", role, facts)))) is reads


@pytest.mark.parametrize(
    ("instant", "zone", "expected"),
    [
        ("2026-04-11T10:00:00+00:00", "UTC", "Saturday, 11 April 2026, 10:00 (UTC)"),
        ("2026-03-29T00:59:59+00:00", "Europe/Berlin", "Sunday, 29 March 2026, 01:59:59 (Europe/Berlin, UTC+01:00)"),
        ("2026-03-29T01:00:00+00:00", "Europe/Berlin", "Sunday, 29 March 2026, 03:00 (Europe/Berlin, UTC+02:00)"),
        (
            "2026-12-31T10:30:00+00:00",
            "Pacific/Kiritimati",
            "Friday, 1 January 2027, 00:30 (Pacific/Kiritimati, UTC+14:00)",
        ),
        ("2028-02-29T11:00:00+00:00", "Etc/GMT+12", "Monday, 28 February 2028, 23:00 (Etc/GMT+12, UTC-12:00)"),
        ("2026-04-11T10:00:00.000001+00:00", "UTC", "Saturday, 11 April 2026, 10:00:01 (UTC)"),
        ("2026-04-11T10:00:00+00:00", "Moon/Tranquility", "Saturday, 11 April 2026, 10:00 (UTC)"),
        ("2026-04-11T10:00:00+00:00", "../../etc/passwd", "Saturday, 11 April 2026, 10:00 (UTC)"),
    ],
)
def test_times_have_their_zone_and_are_never_early(instant: str, zone: str, expected: str) -> None:
    assert format_email_timestamp(datetime.fromisoformat(instant), zone) == expected


HOSTILE = (
    "<script>alert(1)</script> {{7*7}} ${jndi:x} %s%n '; DROP TABLE orders; --\r\n.\r\nBcc: all@example.org\n"
    "\u202egnp.exe \u2066x\u2069\u2069\u202c\x1b[31m\x00\x07 \u2028next <img src=x onerror=y> &amp; \ud7ff 👍"
)


def test_hostile_comment_is_shown_as_text() -> None:
    sent = outgoing(email_context("npb_responded", "seller", {"unlocks_at": LATER, "comment": HOSTILE}))
    text, page = render_text_part(sent, BRANDING), render_html_part(sent, BRANDING)
    assert "<script>" in text
    assert "<script>" not in page
    assert "<img" not in page
    assert "{{7*7}}" in page
    assert "49" not in re.sub(r"#\w+", "", page)
    for side in (text, page):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", side)
        assert balanced(side)
    assert all(line.startswith(">") for line in text.split("The buyer wrote:\n\n")[1].split("\n\n")[0].split("\n"))


@pytest.mark.parametrize(
    "text", ["\u202e", "\u2069\u2069a", "\u2066\u202ea\u2069b", "אבג\nabc", "a\u202cb\u2067", "العربية 123"]
)
def test_text_direction_ends_with_the_text(text: str) -> None:
    for line in [*sanitize_email_lines(text), sanitize_email_line(text)]:
        assert balanced(line)
        assert line.startswith("\u2068") or line.isascii()


def test_long_names_are_truncated() -> None:
    assert len(sanitize_email_line("x" * 5000)) == 80


def balanced(text: str) -> bool:
    """Whether every line closes each text direction that it opens."""
    for line in text.split("\n"):
        open_kinds: list[str] = []
        for c in line:
            if c in "\u2066\u2067\u2068":
                open_kinds.append("\u2069")
            elif c in "\u202a\u202b\u202d\u202e":
                open_kinds.append("\u202c")
            elif c in "\u2069\u202c" and (not open_kinds or open_kinds.pop() != c):
                return False
        if open_kinds:
            return False
    return True


if __name__ == "__main__":
    SNAPSHOTS.mkdir(exist_ok=True)
    for old in SNAPSHOTS.iterdir():
        old.unlink()
    for example in FACTS:
        for file_name, content in render_sides(example):
            (SNAPSHOTS / file_name).write_text(content, encoding="utf-8")
