"""Through what do letters leave?  Whatever postbox the process was given; without one they count as sent (replay)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from policies.emails.email import Email


@dataclass(frozen=True, slots=True)
class OutgoingEmail:
    """One letter with everything its mail needs.  `message_id` is the same at every try: mailboxes can drop repeats."""

    message_id: str
    event: str
    order_id: int | None
    email: str
    handle: str
    written_at: datetime
    content: Email


class Undeliverable(Exception):
    """It will not get better by waiting: no such address, refused for good (5xx)."""


class TemporaryFailure(Exception):
    """This letter was not taken now (4xx); others may be."""


class ServerUnavailable(TemporaryFailure):
    """There is no talking to the mail server at the moment: the other letters need not be tried either.

    `tried` is False when not even this letter was: it keeps its try.
    """

    def __init__(self, reason: str, *, tried: bool = True) -> None:
        super().__init__(reason)
        self.tried = tried


class Mailer(Protocol):
    """Sends letters.  Raises `Undeliverable`, `TryLater` or `ServerSilent`; anything else is a bug and tried later."""

    def send(self, envelope: OutgoingEmail) -> None:
        """Hand the letter over; when this returns it is out of our hands."""
        ...

    def close(self) -> None:
        """The last letter of a round was sent: connections may be given back."""
        ...


class _Nowhere:
    """Letters of a simulated past stay where they are."""

    def send(self, envelope: OutgoingEmail) -> None:
        """Counts as sent."""

    def close(self) -> None:
        """Nothing to give back."""


_bound: Mailer = _Nowhere()


def set_mailer(postbox: Mailer | None) -> None:
    """Let this process send its letters through `postbox`; None for nowhere."""
    global _bound  # noqa: PLW0603 - one per process is the point
    _bound = postbox if postbox is not None else _Nowhere()


def current_mailer() -> Mailer:
    """The postbox of this process."""
    return _bound
