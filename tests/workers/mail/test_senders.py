"""Tests of messages as senders write them, and of sending to a folder."""

from __future__ import annotations

import email
from email.policy import default
from pathlib import Path

import pytest

from policies.emails.email import Email
from tasks.mailer import UndeliverableEmail
from tests.workers.mail.emails import BRANDING, CREATED_AT, EMAIL, outgoing
from workers.mail.mime_message import (
    build_mime_message,
    encode_mime_address,
    render_html_part,
    render_text_part,
    sanitize_mime_header,
)
from workers.mail.senders import FolderMailer


def test_folder_has_each_email_once_and_complete(tmp_path: Path) -> None:
    box = FolderMailer(tmp_path / "mail", BRANDING)
    assert box.send([outgoing()]) == box.send([outgoing()]) == [None]
    (file,) = (tmp_path / "mail").iterdir()
    assert file.name == "20260404T100000Z-ocr_filed-000000000000.eml"
    assert file.stat().st_mode & 0o077 == 0
    message = email.message_from_bytes(file.read_bytes(), policy=default)
    assert message["Subject"] == EMAIL.subject


@pytest.mark.parametrize(
    "hostile",
    ["Sam\r\nBcc: all@example.org", "Sam\nX: y", "Sam\x00\x1b[31m", "Sam\u2028Bcc: x", "\u202emaS", '"Sam" <x@y.z>'],
)
def test_a_name_cannot_add_a_header(hostile: str) -> None:
    message = build_mime_message(
        outgoing(handle=hostile, content=Email(f"Order 1003: {hostile}", ("Hello.",))), BRANDING
    )
    again = email.message_from_bytes(message, policy=default)
    assert "Bcc" not in again
    assert "X" not in again
    assert [a.addr_spec for a in again["To"].addresses] == ["sam@example.org"]
    assert all(c.isprintable() for c in again["Subject"] + str(again["To"]))
    assert "\u202e" not in sanitize_mime_header(hostile)


@pytest.mark.parametrize(
    "address",
    ["", "sam", "@example.org", "sam@", "sam@@example.org", "sam@exa mple.org", "sam@example.org\nBcc: x@y.z",
     "sam@-example.org", "a" * 65 + "@example.org", "sam@" + "a." * 130 + "org", "sam@example..org", "<s@example.org>",
     "sam,sue@example.org", "sam@example.org,sue@example.org", "Sam <sam@example.org>", "sam@[127.0.0.1]"],
)  # fmt: skip
def test_invalid_addresses_are_undeliverable(address: str) -> None:
    with pytest.raises(UndeliverableEmail):
        encode_mime_address(address)


def test_an_international_domain_is_written_in_ascii() -> None:
    assert encode_mime_address("sam.o'neil+market@bücher.example") == "sam.o'neil+market@xn--bcher-kva.example"


@pytest.mark.parametrize("handle", ["Sam", "Sam, the “Brick” & Söhne", "S. O'Neil", "שם", "S" * 80])
def test_a_mail_reads_as_it_was_written(handle: str) -> None:
    """Names, dots, long and trailing spaces survive quoting and folding; no line is too long for a server."""
    paragraph = "x" * 1_500 + " ends. \n.\n. dot  =3D ü€👍"
    sent = outgoing(handle=handle, email="s.o'neil+a@bücher.example", content=Email(f"Ä{'b' * 90}", (paragraph,)))
    raw = build_mime_message(sent, BRANDING)
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) < 90
    message = email.message_from_bytes(raw, policy=default)
    assert not message.defects
    (to,) = message["To"].addresses
    assert (to.display_name, to.addr_spec) == (sanitize_mime_header(handle), "s.o'neil+a@xn--bcher-kva.example")
    assert message["Subject"] == sent.content.subject
    assert message["Date"].datetime == CREATED_AT
    for subtype, body in (("plain", render_text_part(sent, BRANDING)), ("html", render_html_part(sent, BRANDING))):
        part = message.get_body((subtype,))
        assert part is not None
        assert part.get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")
