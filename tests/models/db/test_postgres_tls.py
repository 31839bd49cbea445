"""Tests of PostgreSQL over TLS: what every program verifies, against a server with an authority of the tests' own."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from models.db import database as db
from models.db.postgres_address import PostgresAddress
from tests.plugins.postgres import CERTIFICATES, PostgresServer, new_tls_server, programs
from workers.embedded.client import ServerUrls
from workers.embedded.processes import wait_until
from workers.monitoring.doctor import run_checks
from workers.monitoring.doctor.context import Context
from workers.settings import SettingsError, load_settings
from workers.submissions.listener import Listener

CA = CERTIFICATES / "ca.pem"
OTHER_CA = CERTIFICATES / "client.pem"
"""A certificate that signed nothing."""
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with new_tls_server() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Sets the files of TLS and returns the URL that every program gets then."""
    key = tmp_path / "client.key"
    shutil.copy(CERTIFICATES / "client.key", key)
    key.chmod(0o600)

    def load(ca: Path | None = CA, host: str = "127.0.0.1", query: str = "", certificate: bool = True) -> str:
        monkeypatch.setenv("DATABASE_URL", server.url().replace("127.0.0.1", host) + query)
        if ca is not None:
            monkeypatch.setenv("UNWIND_TLS_CA_FILE", str(ca))
        if certificate:
            monkeypatch.setenv("UNWIND_TLS_CERT_FILE", str(CERTIFICATES / "client.pem"))
            monkeypatch.setenv("UNWIND_TLS_KEY_FILE", str(key))
        settings = load_settings()
        assert settings.database_url is not None
        for variable, value in settings.environment().items():
            monkeypatch.setenv(variable, value)
        assert load_settings() == settings, "a program that inherits them has the same"
        return settings.database_url.get_secret_value()

    return load


def ask(url: str) -> object:
    database = db.connect(url, as_app=False)
    try:
        with database.transaction() as conn:
            return conn.execute(text(ENCRYPTED)).scalar()
    finally:
        database.dispose()


def ask_psql(url: str) -> subprocess.CompletedProcess[str]:
    """As `backup`, `restore` and `migrate` run PostgreSQL's programs."""
    address = PostgresAddress.parse(url)
    words = [str(programs() / "psql"), "-XAtc", ENCRYPTED, address.client_conninfo("test")]
    return subprocess.run(words, env=address.client_environment(), capture_output=True, text=True, check=False)


def test_every_program_connects_with_the_files_of_the_settings(server: PostgresServer, url: Callable[..., str]) -> None:
    """The engine, PostgreSQL's programs, the doctor and the listener; the name is verified without a word about it."""
    address = url()
    assert PostgresAddress.parse(address).connection_parameters("test")["sslmode"] == "verify-full"
    assert (ask(address), ask_psql(address).stdout) == (True, "t\n")
    assert "DATABASE_UNREACHABLE" not in [finding.code for finding in run_checks(Context(load_settings()))]
    listener = Listener(address, lambda: None)
    listener.start()
    with contextlib.closing(listener), server.connect() as conn:
        listening = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE query LIKE 'LISTEN%%'"
        assert wait_until(lambda: conn.execute(listening).fetchall() == [(True,)], 30)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"ca": OTHER_CA}, "certificate verify failed"),
        ({"host": "localhost.localdomain", "query": "?hostaddr=127.0.0.1"}, "does not match host name"),
        ({"query": "?sslmode=disable"}, "no encryption"),
        ({"certificate": False}, "requires a valid client certificate"),
    ],
)
def test_what_cannot_be_verified_is_refused_by_every_program(
    url: Callable[..., str], options: dict[str, object], why: str
) -> None:
    address = url(**options)
    with pytest.raises(OperationalError, match=why):
        ask(address)
    assert why in ask_psql(address).stderr
    with pytest.raises(psycopg.OperationalError, match=why):
        psycopg.connect(make_conninfo(**PostgresAddress.parse(address).connection_parameters("test")))


def test_an_authority_in_the_url_is_verified_and_comes_first(url: Callable[..., str]) -> None:
    """libpq would take a server's word for it, even one without TLS."""
    assert ask(url(ca=OTHER_CA, query=f"?sslrootcert={CA}")) is True
    with pytest.raises(OperationalError, match="certificate verify failed"):
        ask(url(ca=None, query=f"?sslrootcert={OTHER_CA}"))


def test_embedded_servers_have_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are for the other server; programs that inherit the address connect as before."""
    monkeypatch.setenv("UNWIND_TLS_CA_FILE", str(CA))
    urls = ServerUrls(
        "postgresql+psycopg://u:p@127.0.0.1/x", "redis://h/0", "redis://h/1", "postgresql://a@127.0.0.1/x"
    )
    settings = load_settings().with_servers(urls)
    for variable, value in settings.environment().items():
        monkeypatch.setenv(variable, value)
    inherited = load_settings().database_url
    assert inherited is not None
    assert PostgresAddress.parse(inherited.get_secret_value()).parameters["sslmode"] == "disable"


def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_TLS_CA_FILE", "/nowhere/ca.pem")
    with pytest.raises(SettingsError, match=r"UNWIND_TLS_CA_FILE.* that this account can read \(No such file"):
        load_settings()
