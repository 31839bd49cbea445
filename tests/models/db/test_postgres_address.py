"""Tests of parsing database URLs: the engine and PostgreSQL's programs reach the same server by them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url, text

from models.db.database import make_engine
from models.db.postgres_address import PostgresAddress
from tests.plugins.postgres import PASSWORD, USER, PostgresServer, programs
from workers.embedded.client import ServerUrls
from workers.settings import SettingsError, load_settings

ACCEPTED: dict[str, dict[str, str | None]] = {
    "postgresql://u:p@db/unwind": {"host": "db", "port": "5432", "user": "u", "password": "p", "dbname": "unwind"},
    "postgres://u@db:6543/unwind": {"host": "db", "port": "6543", "user": "u", "password": None},
    "postgresql+psycopg2://db/unwind": {"host": "db", "user": None},
    "postgresql://u:p%40s%3As%2Fw%25%20rd@db/un%20wind": {"password": "p@s:s/w% rd", "dbname": "un wind"},
    "postgresql://u:a:b@db/x": {"password": "a:b"},
    "postgresql://u:p@[::1]:6543/x": {"host": "::1", "port": "6543"},
    "postgresql://u:p@[fe80::1%25eth0]/x": {"host": "fe80::1%eth0", "port": "5432"},
    "postgresql://u:p@h1:1,h2:2/x": {"host": "h1,h2", "port": "1,2", "target_session_attrs": "primary"},
    "postgresql://u:p@h1,[::1]:2,h3/x": {"host": "h1,::1,h3", "port": "5432,2,5432"},
    "postgresql://u:p@h1,h2/x?target_session_attrs=any": {"target_session_attrs": "any"},
    "postgresql://u:p@/x?host=h1:1&host=h2:2": {"host": "h1,h2", "port": "1,2", "target_session_attrs": "primary"},
    "postgresql://u:p@/x?host=h1,h2&port=1,2": {"host": "h1,h2", "port": "1,2"},
    "postgresql://u:p@/x?host=h1,h2&port=7": {"port": "7,7"},
    "postgresql://u@/x?host=/run/pg": {"host": "/run/pg", "port": "5432", "target_session_attrs": None},
    "postgresql://u@localhost/x?host=/run/pg": {"host": "/run/pg"},
    "postgresql://u@%2Frun%2Fpg:7/x": {"host": "/run/pg", "port": "7"},
    "postgresql://db/x?user=u&password=p%26w": {"user": "u", "password": "p&w"},
    "postgresql://u:p@db/x?sslmode=verify-full&sslrootcert=/etc/c++/ca.pem": {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/c++/ca.pem",
    },
    "postgresql://u:p@db/x?ssl=true": {"sslmode": "require"},
    "postgresql://u:p@db/x?options=-c%20work_mem%3D64MB": {"options": "-c work_mem=64MB"},
    "postgresql://u:p@db/x?options=-c+work_mem%3D64MB": {"options": "-c work_mem=64MB"},
    "postgresql://u:p@db/x?connect_timeout=2&application_name=me": {"connect_timeout": "2", "application_name": "me"},
    "postgresql://u:p@db/x?client_encoding=utf8": {"client_encoding": "UTF8"},
}

REFUSED = {
    "mysql://u:hunter2@db/x": "must begin with postgresql://",
    "postgresql://u:hunter2@db": "must name a database",
    "postgresql://u:hunter2@db/": "must name a database",
    "postgresql:///hunter2": "must name a host",
    "postgresql://u:hunter2@/x": "must name a host",
    "postgresql://u:hunter2@h1,,h2/x": "must name a host",
    "postgresql://u:hunter2@db:x/x": "must name hosts as host:5432",
    "postgresql://u:hunter2/2@db/x": "special characters of a password as their % codes",
    "postgresql://u:hunter2@2@db/x": "%40 for each @",
    "postgresql://u:hunter2%@db/x": "must write a % as %25",
    "postgresql://u:hunter2%FF@db/x": "the % codes of UTF-8",
    "postgresql://u:hunter2%00@db/x": "must not contain %00",
    "postgresql://u:hunter 2@db/x": "must contain no spaces",
    "postgresql://u:hunter2@db:0/x": "a port between 1 and 65535",
    "postgresql://u:hunter2@db:65536/x": "a port between 1 and 65535",
    "postgresql://u:hunter2@/x?host=h1,h2&port=1,2,3": "one port, or one for each host",
    "postgresql://u@db/x?sslmode=hunter2": (
        "must give sslmode as disable, allow, prefer, require, verify-ca or verify-full"
    ),
    "postgresql://u@db/x?sslmode=require&sslmode=hunter2": "must give each parameter once",
    "postgresql://u@h1,h2/x?target_session_attrs=standby": (
        "must give target_session_attrs as primary, read-write or any"
    ),
    "postgresql://u@db/x?client_encoding=hunter2": "must give client_encoding as utf8",
    "postgresql://u@db/x?connect_timeout=hunter2": "must give connect_timeout as a whole number",
    "postgresql://u@db/x?connect_timeout=0": "0 would wait forever",
    "postgresql://u@db/x?service=hunter2": "no service",
    "postgresql://u@db/x?sslkey=k&sslpassword=hunter2": "must not hold sslpassword",
    "postgresql://u@db/x?pool_size=hunter2": "must not hold the parameter pool_size",
    "postgresql://u@db/x?hunter2": "must give parameters as ?name=value",
}


@pytest.mark.parametrize("url", ACCEPTED)
def test_usual_spellings_are_accepted(url: str) -> None:
    parameters = PostgresAddress.parse(url).connection_parameters("test")
    assert {name: parameters.get(name) for name in ACCEPTED[url]} == ACCEPTED[url]
    assert PostgresAddress.parse(str(make_url("postgresql+psycopg://x/y"))).hosts == (("x", 5432),)


@pytest.mark.parametrize("url", ACCEPTED)
def test_libpq_parses_accepted_urls_alike(url: str) -> None:
    plain = re.sub(r"^\w+\+?\w*://", "postgresql://", url)
    if "host=h1:1" in url:  # SQLAlchemy's own spelling
        return
    libpq_parameters = conninfo_to_dict(plain)
    parameters = PostgresAddress.parse(url).connection_parameters("test")
    for name in ("user", "password", "dbname", "host", "sslmode", "sslrootcert"):
        if name in libpq_parameters:
            assert parameters[name] == libpq_parameters[name]


@pytest.mark.parametrize("url", REFUSED)
def test_unusable_urls_are_refused_without_repeating_values(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert REFUSED[url] in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(PostgresAddress.parse("postgresql://u:hunter2@db/x"))


@pytest.mark.parametrize("spelling", ["tcp", "socket", "several", "query"])
def test_engine_and_psql_reach_the_same_server_in_any_environment(
    spelling: str, other_server: PostgresServer, servers_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PG* variables of the environment point to another server and are ignored."""
    tcp = other_server.url()
    url = {
        "tcp": tcp,
        "socket": other_server.socket_url(),
        "several": tcp.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:"),
        "query": tcp.replace(f"127.0.0.1:{other_server.port}", "") + f"?host=127.0.0.1&port={other_server.port}",
    }[spelling]
    service = tmp_path / "services"
    service.write_text(f"[elsewhere]\nhost=127.0.0.1\nport={servers_port}\n")
    for name, value in {
        "PGHOST": "127.0.0.1",
        "PGHOSTADDR": "127.0.0.1",
        "PGPORT": str(servers_port),
        "PGUSER": "nobody",
        "PGPASSWORD": "wrong",
        "PGDATABASE": "elsewhere",
        "PGSERVICE": "elsewhere",
        "PGSERVICEFILE": str(service),
        "PGSSLMODE": "verify-full",
        "PGTARGETSESSIONATTRS": "standby",
        "PGOPTIONS": "-c no_such_setting=1",
        "PGCLIENTENCODING": "LATIN1",
        "PGTZ": "Asia/Kathmandu",
        "PGDATESTYLE": "German",
    }.items():
        monkeypatch.setenv(name, value)
    address = PostgresAddress.parse(url)
    done = subprocess.run(
        [programs() / "psql", "-XAtc", "SHOW port; SHOW timezone", address.client_conninfo("test")],
        env=address.client_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == ([str(other_server.port), "UTC"], "")
    engine = make_engine(url)
    with engine.connect() as conn:
        assert conn.execute(text("SHOW port")).scalar() == str(other_server.port)
        assert conn.execute(text("SHOW client_encoding")).scalar() == "UTF8"
        assert conn.execute(text("SELECT session_user")).scalar() == USER
    engine.dispose()
    assert not [name for name in os.environ if name.startswith("PG")]


def test_password_is_on_no_command_line(other_server: PostgresServer) -> None:
    address = PostgresAddress.parse(other_server.url())
    assert address.password == PASSWORD
    assert PASSWORD not in address.client_conninfo("test")
    assert "password" not in conninfo_to_dict(address.client_conninfo("test"))


@pytest.fixture
def servers_port(servers: ServerUrls) -> int:
    """The port of the test run's server, which no connection of these tests may reach."""
    port = make_url(servers.database_url).port
    assert port is not None
    return port
