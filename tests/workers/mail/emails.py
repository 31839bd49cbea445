"""An email to send, for tests of senders."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from policies.emails.email import Email, Quote
from tasks.mailer import OutgoingEmail
from workers.mail.mime_message import MailBranding

BRANDING = MailBranding("Unwind <no-reply@market.example>", "the brick market", "https://market.example")
CREATED_AT = datetime(2026, 4, 4, 10, tzinfo=UTC)
EMAIL = Email("Order 1003: the buyer asks to cancel", ("The buyer asks to cancel.",), Quote("The buyer", "Sorry."))


def outgoing(**changed: Any) -> OutgoingEmail:
    fields: dict[str, Any] = {
        "message_id": "0" * 32,
        "event": "ocr_filed",
        "order_id": 1003,
        "email": "sam@example.org",
        "handle": "Sam",
        "written_at": CREATED_AT,
        "content": EMAIL,
    }
    return OutgoingEmail(**(fields | changed))
