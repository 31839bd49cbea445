"""Sends one event to a webhook: signed, to a public address, once, without redirects, within ten seconds.

The sender resolves the webhook's name itself and connects to the address that it checked: a receiver gains nothing
when its name resolves to a private address a moment later.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any
from urllib.parse import SplitResult, urlsplit

from standardwebhooks import Webhook

from tasks.webhooks import SEND_TIMEOUT_SECONDS, WebhookRejected
from workers.setting_types import Network

WEBHOOK_MEDIA_TYPE = "application/cloudevents+json"

_TRANSLATED = tuple(ipaddress.ip_network(text) for text in ("64:ff9b::/32", "2001::/32", "2002::/16"))
"""NAT64, Teredo and 6to4: an address of another kind is inside."""


class WebhookSender:
    """`allowed`: networks beside the public ones, whose endpoints may also use plain HTTP."""

    def __init__(self, allowed: Sequence[Network] = (), *, trust: ssl.SSLContext | None = None) -> None:
        self._allowed = allowed
        self._trust = trust or ssl.create_default_context()

    def __call__(self, url: str, secret: str, event: dict[str, Any]) -> None:
        deadline = monotonic() + SEND_TIMEOUT_SECONDS
        parts = urlsplit(url)
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        now = datetime.now(UTC)  # noqa: TID251 - receivers compare it with their own clock
        headers = {
            "Content-Type": WEBHOOK_MEDIA_TYPE,
            "User-Agent": "Unwind",
            "webhook-id": event["id"],
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(event["id"], now, body),
        }
        try:
            status = self._post_event(parts, body.encode(), headers, deadline)
        except (OSError, http.client.HTTPException) as error:
            if monotonic() >= deadline:
                raise WebhookRejected("it did not answer in time") from None
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise WebhookRejected(f"it cannot be reached: {reason}") from None
        if not 200 <= status < 300:
            redirects = " (redirects are not followed)" if 300 <= status < 400 else ""
            raise WebhookRejected(f"it answered with status {status}{redirects}", is_gone=status == 410)

    def _resolve_receiver(self, parts: SplitResult) -> str:
        addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)]
        if not all(self._may_connect(address, encrypted=parts.scheme == "https") for address in addresses):
            raise WebhookRejected("its name resolves to an address that is not public, or it does not use https")
        return addresses[0]

    def _may_connect(self, address: str, *, encrypted: bool) -> bool:
        ip = ipaddress.ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if any(ip in network for network in self._allowed):
            return True
        return encrypted and ip.is_global and not ip.is_multicast and not any(ip in network for network in _TRANSLATED)

    def _post_event(self, parts: SplitResult, body: bytes, headers: dict[str, str], deadline: float) -> int:
        address = (self._resolve_receiver(parts), parts.port or (443 if parts.scheme == "https" else 80))
        with contextlib.ExitStack() as opened:
            line = opened.enter_context(socket.create_connection(address, timeout=_seconds_left_to_send(deadline)))
            opened.enter_context(_webhook_closed_at(deadline, line))
            if parts.scheme == "https":
                line = opened.enter_context(self._trust.wrap_socket(line, server_hostname=parts.hostname))
            connection = http.client.HTTPConnection(parts.hostname or "", address[1])
            connection.sock = line
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body, headers | {"Connection": "close"})
            status = connection.getresponse().status
            if monotonic() >= deadline:  # the answer was cut off, and what came of it proves nothing
                raise TimeoutError
            return status


@contextlib.contextmanager
def _webhook_closed_at(deadline: float, line: socket.socket) -> Iterator[None]:
    # A receiver that sends a byte now and then would reset the timeout of every read.
    descriptor = line.dup()

    def close() -> None:
        with contextlib.suppress(OSError):
            descriptor.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_seconds_left_to_send(deadline), close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        descriptor.close()


def _seconds_left_to_send(deadline: float) -> float:
    return max(0.01, deadline - monotonic())
