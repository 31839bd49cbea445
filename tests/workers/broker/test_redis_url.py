"""Tests of accepted Redis and Valkey URLs, with real servers and real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import redis
from kombu.entity import Queue
from kombu.exceptions import OperationalError
from kombu.messaging import Consumer

from tests.plugins.proxy import Proxy
from tests.plugins.servers import in_valkey_database
from workers.app import app
from workers.broker.redis_url import RedisUrl, connect_to_redis
from workers.broker.result_backend import ResultBackend
from workers.broker.wakeups import OutboxPublisher
from workers.embedded.client import ServerUrls
from workers.embedded.data_dir import free_port
from workers.embedded.processes import wait_until
from workers.embedded.servers import Valkey
from workers.monitoring.doctor import broker as doctor_broker
from workers.monitoring.doctor.context import Context
from workers.monitoring.flower_guard import FlowerQueueLengths
from workers.monitoring.metrics_server import MetricsCollector
from workers.monitoring.watchdog import count_waiting_messages
from workers.settings import Settings, SettingsError, load_settings
from workers.transport.acknowledgement import settle
from workers.transport.connection import Connection

CERTIFICATES = Path(__file__).resolve().parents[2] / "plugins" / "tls"
CA = CERTIFICATES / "ca.pem"
PASSWORD = "p/w@#?%:;,[ü+& "


@pytest.mark.parametrize(
    ("url_text", "normal"),
    [
        ("redis://host", "redis://host/0"),
        ("redis://:pw@host:6380/4", "redis://:pw@host:6380/4"),
        ("redis://me@host?db=3", "redis://me@host/3"),
        ("redis://h?virtual_host=3&health_check_interval=5", "redis://h/3?health_check_interval=5"),
        ("valkeys://:pw@host", "rediss://:pw@host/0?ssl_cert_reqs=required"),
        ("rediss://host/0?ssl_cert_reqs=CERT_NONE", "rediss://host/0?ssl_cert_reqs=none"),
        ("redis://[::1]:6379/2?socket_timeout=7.5", "redis://[::1]:6379/2?socket_timeout=7.5"),
        ("redis://u:a%2Fb%40c@host/0", "redis://u:a%2Fb%40c@host/0"),
        ("redis://:100%@host", "redis://:100%25@host/0"),
        ("redis://u@x:p@ss@host", "redis://u%40x:p%40ss@host/0"),
        ("unix:///run/a b.sock".replace(" ", "%20"), "redis+socket:///run/a%20b.sock?virtual_host=0"),
        ("unix:///r.sock?db=2&password=p%40", "redis+socket://:p%40@/r.sock?virtual_host=2"),
        ("redis+socket://me:pw@/r.sock?virtual_host=1", "redis+socket://me:pw@/r.sock?virtual_host=1"),
        ("sentinel://:pw@a,b:1,[::1]/3?master=m", "sentinel://:pw@a:26379,b:1,[::1]:26379/3?master=m"),
        (
            "redis+sentinel://u:p@a:7?sentinel_password=x&master=m&socket_timeout=3&sentinel_username=y",
            "sentinel://u:p@a:7/0?master=m&sentinel_password=x&sentinel_username=y&socket_timeout=3",
        ),
    ],
)
def test_usual_urls_are_normalized(url_text: str, normal: str) -> None:
    """Other programs must parse the result alike."""
    assert str(RedisUrl.parse(url_text)) == normal
    assert str(RedisUrl.parse(normal)) == normal


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://:hunter2@a/0;redis://:hunter2@b/0", "list of brokers"),
        ("redis://:hunter2@a/0,redis://:hunter2@b/0", "list of brokers"),
        ("redis://:hunter2@a:6379;b:6379/0", "list of brokers"),
        ("sentinel://:hunter2@a:26379", "must name what the sentinels watch"),
        ("sentinel://:hunter2@a;sentinel://b/0?master=unwind", "not a list of brokers"),
        ("sentinel://:hunter2@a,b:x/0?master=unwind", "a host and a port number"),
        ("sentinel://:hunter2@a/0?master=unwind&ssl_cert_reqs=none", "options for TLS"),
        ("sentinels://:hunter2@a/0?master=unwind", "without TLS"),
        ("redis://:hunter2@a/0?master=unwind", "an option that is not supported"),
        ("redis+cluster://:hunter2@a", "Redis Cluster is not supported"),
        ("redis://:hunter2/x@host/0", "%2F"),
        ("redis://:hunter2#x@host/0", "%23"),
        ("redis://:hunter2?x@host/0", "%3F"),
        ("redis://:hunter2[x@host/0", "%5B"),
        ("redis://:hunter2 x@host/0", "%20"),
        ("redis://:hunter2@host:99999/0", "port number"),
        ("redis://:hunter2@host:port/0", "port number"),
        ("redis://:hunter2@[::1/0", "port number"),
        ("redis://:hunter2@host/queue", "database number"),
        ("redis://:hunter2@host/1?db=2", "one database number"),
        ("redis://:hunter2@host/0?socket_timeout=1", "invalid option socket_timeout: it must be 2 to 60 seconds"),
        ("redis://:hunter2@host/0?socket_timeout=never", "socket_timeout"),
        ("redis://:hunter2@host/0?health_check_interval=0", "health_check_interval"),
        ("redis://:hunter2@host/0?socket_keepalive=maybe", "socket_keepalive"),
        ("redis://:hunter2@host/0?client_name=a%20b", "client_name"),
        ("redis://:hunter2@host/0?decode_responses=true", "an option that is not supported"),
        ("redis://:hunter2@host/0?socket_timeout=5&socket_timeout=6", "twice"),
        ("redis://:hunter2@host/0?ssl_cert_reqs=required", "rediss://"),
        ("rediss://:hunter2@host/0?ssl_cert_reqs=hunter2", "required, optional or none"),
        ("rediss://:hunter2@host/0?ssl_ca_certs=/hunter2.pem", "a file that this account can read"),
        (f"rediss://:hunter2@host/0?ssl_ca_certs={__file__}", "no certificate"),
        (f"rediss://:hunter2@host/0?ssl_ca_path={__file__}", "a folder that this account can read"),
        (f"rediss://:hunter2@host/0?ssl_ca_certs={CERTIFICATES}", "a file that this account can read"),
        (f"rediss://:hunter2@host/0?ssl_keyfile={CERTIFICATES / 'client.key'}", "no certificate"),
        ("redis+socket://:hunter2@run/redis.sock", "whole path"),
        ("unix://", "whole path"),
    ],
)
def test_unusable_url_is_rejected_with_an_explanation(monkeypatch: pytest.MonkeyPatch, url: str, sentence: str) -> None:
    """A password may be anywhere in a URL, so no part of it is shown."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith("CELERY_BROKER_URL: ")
    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_relative_files_in_a_url_are_resolved_from_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that we start may have another one."""
    monkeypatch.chdir(CERTIFICATES)
    assert RedisUrl.parse("rediss://host?ssl_ca_certs=ca.pem").tls_options["ssl_ca_certs"] == str(CA)


# -- every program ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tls_server(url: str, *, listen: str = "127.0.0.1", clients: bool = False) -> Iterator[int]:
    """The TLS port of the server; with `clients`, only for clients with a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    if clients:
        context.load_verify_locations(CA)
        context.verify_mode = ssl.CERT_REQUIRED
    with Proxy(urlsplit(url).port or 0, listen=listen, tls=context) as proxy:
        yield proxy.port


def _allow(server: Any, user: str) -> None:
    server.execute_command("ACL", "SETUSER", user, "on", f">{PASSWORD}", "~*", "&*", "+@all")


def _pair(url: str, scheme: str, host: str, port: int, query: str = "") -> tuple[str, str]:
    """The same databases (broker and result backend) by another kind of URL."""
    login, number = url.partition("://")[2].rpartition("@")[0], int(url.rpartition("/")[2])
    broker, answers = (f"{scheme}://{login}@{host}:{port}/{database}{query}" for database in (number, number + 1))
    return broker, answers


@pytest.fixture
def socket_server(tmp_path: Path) -> Iterator[Path]:
    """A Valkey with a Unix socket and a user `me`, whose password has special characters."""
    path = Path("/tmp") / f"unwind-{tmp_path.name[-40:]}.sock"  # a socket's path is 107 bytes long at most
    server = Valkey(tmp_path, "secret", durable=False, settings={"unixsocket": str(path), "unixsocketperm": "700"})
    server.start(free_port())
    try:
        assert wait_until(server.ready, 20)
        with contextlib.closing(redis.Redis(unix_socket_path=str(path), password="secret")) as client:
            _allow(client, "me")
        yield path
    finally:
        server.stop()
        path.unlink(missing_ok=True)


@pytest.fixture
def special_login(servers: ServerUrls) -> Iterator[str]:
    """A user whose name and password need quoting in a URL."""
    with redis.Redis.from_url(in_valkey_database(servers.broker_url, 0)) as server:
        _allow(server, "odd/user")
        try:
            yield f"{quote('odd/user', safe='')}:{quote(PASSWORD, safe='')}"
        finally:
            server.execute_command("ACL", "DELUSER", "odd/user")


KEY = f"ssl_certfile={CERTIFICATES / 'client.pem'}&ssl_keyfile={CERTIFICATES / 'client.key'}"
OPTIONS = "?socket_timeout=9&socket_connect_timeout=3&socket_keepalive=yes&health_check_interval=7&client_name=it"
TRUST = f"ssl_ca_certs={quote(str(CA))}"
OVER_TLS = {
    "Celery's words": ("localhost", f"?ssl_cert_reqs=CERT_REQUIRED&{TRUST}"),
    "redis-py's words": ("127.0.0.1", f"{OPTIONS}&ssl_cert_reqs=required&{TRUST}"),
    "no words": ("localhost", ""),
    "unchecked": ("127.0.0.1", "?ssl_cert_reqs=none"),
    "IPv6": ("[::1]", f"?{TRUST}"),
    "client certificate": ("localhost", f"?{TRUST}&{KEY}&ssl_check_hostname=true"),
}


@pytest.fixture(
    params=[
        *("plain", "options", "special characters", "IPv6", "socket", "socket, redis-py's words", "sentinels"),
        *(f"TLS, {kind}" for kind in OVER_TLS),
    ]
)
def addresses(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, broker_url: str
) -> Iterator[tuple[str, str]]:
    """Broker and result backend, by each kind of URL."""
    kind, port = request.param, urlsplit(broker_url).port or 0
    if kind.startswith("TLS, "):
        if kind == "TLS, no words":
            monkeypatch.setenv("SSL_CERT_FILE", str(CA))
        host, query = OVER_TLS[kind.removeprefix("TLS, ")]
        listen = "::1" if host == "[::1]" else "127.0.0.1"
        with tls_server(broker_url, listen=listen, clients=KEY in query) as tls:
            yield _pair(broker_url, "rediss", host, tls, query)
    elif kind == "IPv6":
        with Proxy(port, listen="::1") as proxy:
            yield _pair(broker_url, "redis", "[::1]", proxy.port)
    elif kind.startswith("socket"):
        path = quote(str(request.getfixturevalue("socket_server")))
        me = f"redis+socket://me:{quote(PASSWORD, safe='')}@{path}?virtual_host="
        address = f"unix://{path}?password=secret&socket_timeout=4&db="
        url = me if kind == "socket" else address
        yield f"{url}2", f"{url}3"
    elif kind == "sentinels":
        group = request.getfixturevalue("sentinel_group")
        yield group.url(0), group.url(1)
    elif kind == "special characters":
        login = request.getfixturevalue("special_login")
        yield _pair(f"redis://{login}@{broker_url.rpartition('@')[2]}", "redis", "127.0.0.1", port)
    else:
        yield _pair(broker_url, "redis", "localhost", port, OPTIONS if kind == "options" else "")


@pytest.fixture
def settings(addresses: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a program that inherited them from another one."""
    monkeypatch.setenv("CELERY_BROKER_URL", addresses[0])
    monkeypatch.setenv("CELERY_RESULT_BACKEND", addresses[1])
    first = load_settings()
    for variable, value in first.environment().items():
        monkeypatch.setenv(variable, value)
    assert load_settings() == first
    return first


def _urls(settings: Settings) -> tuple[str, str]:
    assert settings.broker_url is not None
    assert settings.result_backend is not None
    return settings.broker_url.get_secret_value(), settings.result_backend.get_secret_value()


def queue_lengths(broker: str) -> Any:
    """Ask as Flower does, in a thread: a browser test may have left an event loop running in this one."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(lambda: asyncio.run(FlowerQueueLengths(broker).queues(["commands"]))).result()


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's own call
def test_every_program_can_use_accepted_urls(settings: Settings) -> None:
    """Transport, result backend, watchdog, publisher, metrics, Flower and doctor, at a real server."""
    broker, answers = _urls(settings)
    with Connection(broker, transport_options=app.conf.broker_transport_options) as connection:
        arguments = {"order_id": 1, "member_id": "s-1", "comment": "x" * 20_000}  # longer than one TLS record
        app.send_task("orders.cancel", kwargs=arguments, connection=connection, ignore_result=True)
        assert count_waiting_messages(connect_to_redis(broker), ["commands"]) == 1
        assert queue_lengths(broker) == [{"name": "commands", "messages": 1}]
        messages: list[Any] = []
        queue = Queue("commands", routing_key="commands")  # type: ignore[no-untyped-call]
        with Consumer(connection, [queue], on_message=messages.append, accept=["json"]):  # type: ignore[no-untyped-call]
            while not messages:
                connection.drain_events(timeout=5)
        assert messages[0].decode()[1] == arguments
        settle(messages[0])
        messages[0].ack()
        uri = connection.as_uri()
        assert "secret" not in uri
        assert "**" in uri
        with Connection(connection.as_uri(include_password=True)) as again:
            assert (again.hostname, again.virtual_host) == (connection.hostname, connection.virtual_host)
    assert count_waiting_messages(connect_to_redis(broker), ["commands"]) == 0

    backend = ResultBackend(app=app, url=answers)
    backend.store_result("an-id", {"outcome": "done"}, "SUCCESS")
    assert backend.get_result("an-id") == {"outcome": "done"}
    with contextlib.closing(connect_to_redis(answers, timeout=2)) as client:
        assert client.exists("celery-task-meta-an-id")

    with contextlib.closing(connect_to_redis(broker, timeout=2)) as client:
        assert OutboxPublisher(app, client).broker_epoch()
    gauges = MetricsCollector(load_settings(database_url="postgresql://127.0.0.1:1/unwind"))
    with contextlib.closing(gauges):
        assert gauges.ready()["broker"]
    assert doctor_broker.inspect_worker_queues(broker) == {}
    assert [*doctor_broker.check_result_backend(Context(settings))] == []


def test_files_of_the_settings_are_added_to_urls_with_tls(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL's own files come first; one without TLS gets none; a program that inherits them has the same."""
    for name, file in (("CA", CA), ("CERT", CERTIFICATES / "client.pem"), ("KEY", CERTIFICATES / "client.key")):
        monkeypatch.setenv(f"UNWIND_TLS_{name}_FILE", str(file))
    with tls_server(broker_url, clients=True) as port:
        broker, results = _pair(broker_url, "rediss", "localhost", port)
        monkeypatch.setenv("CELERY_BROKER_URL", broker)
        monkeypatch.setenv("CELERY_RESULT_BACKEND", results)
        settings = load_settings()
        for variable, value in settings.environment().items():
            monkeypatch.setenv(variable, value)
        assert load_settings() == settings
        for url in _urls(settings):
            with contextlib.closing(connect_to_redis(url)) as client:
                assert client.ping()
        monkeypatch.setenv("CELERY_BROKER_URL", f"{broker}?ssl_ca_certs={CERTIFICATES / 'client.pem'}")
        with (
            contextlib.closing(connect_to_redis(_urls(load_settings())[0])) as client,
            pytest.raises(redis.ConnectionError),
        ):
            client.ping()
    monkeypatch.setenv("CELERY_BROKER_URL", broker_url)
    assert "ssl" not in _urls(load_settings())[0]


@pytest.mark.parametrize(
    "query",
    ["", *(pytest.param(f"?ssl_cert_reqs={word}", marks=pytest.mark.long) for word in ("required", "CERT_REQUIRED"))],
)
def test_untrusted_certificate_is_rejected_by_every_program(broker_url: str, query: str) -> None:
    """kombu accepts any certificate unless the URL says otherwise."""
    with tls_server(broker_url) as port:
        broker, answers = (str(RedisUrl.parse(url)) for url in _pair(broker_url, "rediss", "localhost", port, query))
        with (
            contextlib.closing(connect_to_redis(broker, timeout=2)) as client,
            pytest.raises(redis.ConnectionError, match="verify"),
        ):
            client.ping()
        with Connection(broker) as connection, pytest.raises((OperationalError, redis.ConnectionError), match="verify"):
            connection.connect()
        with pytest.raises(redis.ConnectionError, match="verify"):
            ResultBackend(app=app, url=answers).client.ping()


def test_url_options_override_defaults_and_probe_timeouts_stay_short(broker_url: str) -> None:
    """Options for a slow connection apply to work; probes never wait longer than their own timeout."""
    url = f"{broker_url}?socket_timeout=30&socket_connect_timeout=1&health_check_interval=7"
    with Connection(url, transport_options=app.conf.broker_transport_options) as connection:
        channel = connection.default_channel
        timeouts = (channel.socket_timeout, channel.socket_connect_timeout, channel.health_check_interval)
        assert timeouts == (30, 1, 7)
        assert channel.retry_on_timeout is False
        assert channel.unacked_key == app.conf.broker_transport_options["unacked_key"]
    backend = ResultBackend(app=app, url=url)
    assert backend.connparams["socket_timeout"] == 30
    assert backend.connparams["retry_on_timeout"] is True
    with contextlib.closing(connect_to_redis(url, timeout=2)) as client:
        options = client.connection_pool.connection_kwargs
        assert (options["socket_timeout"], options["socket_connect_timeout"]) == (2, 1)


@pytest.mark.parametrize("host", ["redis", "rediss", "valkey", "unix", "broker.example.com"])
def test_a_host_named_like_a_scheme_is_a_host_in_copies_of_a_connection_too(host: str) -> None:
    """Kombu copies a connection with its parts as arguments; Flower does so for the events."""
    with Connection(f"redis://me:pw@{host}:6380/4?socket_timeout=7") as connection, connection.clone() as copy:
        assert copy.as_uri(include_password=True) == f"redis://me:pw@{host}:6380/4"
        assert copy.transport_options["socket_timeout"] == 7


def test_application_uses_our_result_backend(monkeypatch: pytest.MonkeyPatch, result_backend: str) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", f"{result_backend}?socket_timeout=8")
    monkeypatch.setattr(app, "servers_found", True)
    backend = app._get_backend()
    assert type(backend) is ResultBackend
    assert backend.connparams["socket_timeout"] == 8
