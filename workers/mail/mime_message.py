"""Renders an email as a MIME message with a plain-text and an HTML part."""

from __future__ import annotations

import re
from binascii import b2a_qp
from dataclasses import dataclass
from email.headerregistry import Address
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from policies.emails.email import MAX_SUBJECT_LENGTH, render_plain_email, sanitize_email_line, sanitize_email_lines
from policies.texts import replace_unprintable
from tasks.mailer import OutgoingEmail, UndeliverableEmail

MAX_ADDRESS_LENGTH = 254
MAX_LINE_LENGTH = 78
"""Longer header lines are folded (RFC 5322)."""
_MAIL_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAIL_DOMAIN_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def mail_template_environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        # Everything except the plain text is HTML.
        autoescape=select_autoescape(disabled_extensions=("txt.j2",), default=True),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )


_mail_templates = mail_template_environment(Path(__file__).parent / "templates")
_mail_templates.globals["sanitize_lines"] = sanitize_email_lines


@dataclass(frozen=True)
class MailBranding:
    sender: str
    site_name: str
    marketplace_url: str

    @cached_property
    def sender_address(self) -> str:
        return parseaddr(self.sender)[1]


def render_text_part(envelope: OutgoingEmail, branding: MailBranding) -> str:
    template = _mail_templates.get_template("email.txt.j2")
    text = template.render(**_mail_template_facts(envelope, branding), body=render_plain_email(envelope.content))
    return text.rstrip() + "\n"


def render_html_part(envelope: OutgoingEmail, branding: MailBranding) -> str:
    return _mail_templates.get_template("email.html.j2").render(**_mail_template_facts(envelope, branding))


def build_mime_message(envelope: OutgoingEmail, branding: MailBranding) -> bytes:
    # Written line by line: `email.message` takes ten times as long, more than the sending.
    local, _, domain = encode_mime_address(envelope.email).rpartition("@")
    # Quoted-printable text contains no "=_", so no boundary.
    boundary = f"=_{envelope.message_id}"
    headers = (
        ("From", branding.sender),
        ("To", str(Address(sanitize_mime_header(envelope.handle), local, domain))),
        ("Subject", sanitize_mime_header(envelope.content.subject, MAX_SUBJECT_LENGTH)),
        ("Date", format_datetime(envelope.written_at)),
        ("Message-ID", f"<{envelope.message_id}@{branding.sender_address.rpartition('@')[2]}>"),
        # Keeps holiday replies and mailing-list robots quiet (RFC 3834).
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
    )
    return b"".join(
        (
            *(_mime_header(name, value) for name, value in headers),
            f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'.encode(),
            _mime_part("plain", render_text_part(envelope, branding), boundary),
            _mime_part("html", render_html_part(envelope, branding), boundary),
            f"--{boundary}--\r\n".encode(),
        )
    )


def _mime_header(name: str, value: str) -> bytes:
    line = f"{name}: {value}"
    if len(line) <= MAX_LINE_LENGTH and line.isascii() and line.isprintable() and "=?" not in line:
        return f"{line}\r\n".encode()
    return SMTP.fold_binary(*SMTP.header_store_parse(name, value))


def _mime_part(subtype: str, text: str, boundary: str) -> bytes:
    # Quoted-printable passes through servers that know neither 8-bit text nor long lines.
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: quoted-printable\r\n'
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")
    return f"--{boundary}\r\n{head}\r\n".encode() + b2a_qp(lines.encode(), istext=True) + b"\r\n"


def encode_mime_address(email: str) -> str:
    """Encode the address in ASCII.  Raises `Undeliverable` if it is not a valid address, e.g. with a line break."""
    local, at, domain = email.rpartition("@")
    try:
        domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        domain = ""
    labels = domain.split(".")
    if (
        not at
        or len(email) > MAX_ADDRESS_LENGTH
        or len(local) > 64
        or not _MAIL_LOCAL_PART.fullmatch(local)
        or not all(_MAIL_DOMAIN_LABEL.fullmatch(label) for label in labels)
    ):
        raise UndeliverableEmail("the member's email address is not valid")
    return f"{local}@{domain}"


def sanitize_mime_header(text: str, max_length: int = 80) -> str:
    visible = replace_unprintable(text, "", categories=("Cf",))
    return sanitize_email_line(visible, max_length).strip("\u2068\u2069")


def _mail_template_facts(envelope: OutgoingEmail, branding: MailBranding) -> dict[str, object]:
    return {
        "email": envelope.content,
        "handle": sanitize_email_line(envelope.handle),
        "site_name": branding.site_name,
        "order_id": envelope.order_id,
        "link": None if envelope.order_id is None else f"{branding.marketplace_url}/orders/{envelope.order_id}",
        "marketplace_url": branding.marketplace_url,
    }
