"""Tests of task events while the broker is away."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

from celery.worker.heartbeat import Heart
from kombu.asynchronous.timer import Timer

from tests.plugins.proxy import Proxy
from workers.app import UnwindCelery
from workers.event_batching import Dispatcher


def test_heartbeat_returns_while_the_broker_is_away_and_is_kept(broker_url: str, result_backend: str) -> None:
    with (
        Proxy(urlsplit(broker_url).port or 0) as proxy,
        UnwindCelery(
            "events", broker=proxy.url(broker_url), backend=result_backend, set_as_current=False, fixups=[]
        ) as app,
    ):
        dispatcher = Dispatcher(app.connection_for_write(), app=app, hostname="worker@here")
        dispatcher.send("worker-heartbeat")
        proxy.closed = True
        proxy.cut_all()
        heart = Heart(Timer(), dispatcher)  # type: ignore[no-untyped-call]
        sending = threading.Thread(target=heart._send, args=("worker-heartbeat",), daemon=True)
        sending.start()
        sending.join(30)
        assert not sending.is_alive()
        assert [event["type"] for event, _ in dispatcher._outbound_buffer] == ["worker-heartbeat"]
