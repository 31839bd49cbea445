"""Parsing of DATABASE_URL for every program that connects: the engine, the listener, pg_dump, psql and the doctor.

SQLAlchemy's and libpq's spellings are accepted: several hosts, IPv6, a Unix socket in the query, TLS parameters,
`options=`. libpq's environment variables (`PGHOST`, `PGSSLMODE`, ...) are ignored, so one address always leads to the
same server.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from psycopg.conninfo import make_conninfo

from policies.texts import has_blank_or_control, is_storable

SCHEMES = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
DEFAULT_PORT = 5432
EXAMPLE = "postgresql://user:password@host:5432/unwind"

_CONNINFO_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Seconds; `tcp_user_timeout` is in milliseconds and ends a connection whose data is not acknowledged."""

_NUMBER_PARAMETERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
    "sslcompression", "sslsni", "gssdelegation",
)  # fmt: skip
_TEXT_PARAMETERS = (
    "application_name", "options", "hostaddr", "passfile", "requirepeer", "require_auth", "sslcert", "sslkey",
    "sslrootcert", "sslcrl", "sslcrldir", "krbsrvname", "gsslib", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "min_protocol_version", "max_protocol_version",
)  # fmt: skip
_CHOICE_PARAMETERS = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "sslcertmode": ("disable", "allow", "require"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "load_balance_hosts": ("disable", "random"),
    "target_session_attrs": ("primary", "read-write", "any"),
    "client_encoding": ("utf8", "utf-8", "UTF8", "UTF-8", "auto"),
}
_REFUSED_PARAMETERS = {
    "service": "must name the server itself and no service: programs would read different service files",
    "servicefile": "must name the server itself and no service: programs would read different service files",
    "replication": "must not ask for replication",
    "sslpassword": "must not hold sslpassword, which pg_dump could get by its command line only: use a key without one",
}
ADDRESS_CLIENT_VERSIONS = {
    "load_balance_hosts": 16, "require_auth": 16, "sslcertmode": 16, "gssdelegation": 16, "sslnegotiation": 17,
    "min_protocol_version": 18, "max_protocol_version": 18,
}  # fmt: skip
"""The first version of pg_dump and psql that knows a parameter, if newer than the oldest supported server."""


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    hosts: tuple[tuple[str, int], ...]
    """Names, addresses or socket folders, each with its port."""
    database: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Other libpq parameters of the URL."""

    @classmethod
    def parse(cls, url: str) -> PostgresAddress:
        """Parse a URL.  Raises ValueError with a message that repeats no value, since any may be a secret."""
        scheme, separator, rest = url.strip().partition("://")
        if not separator or scheme not in SCHEMES:
            raise ValueError("must begin with postgresql://")
        if has_blank_or_control(rest):
            raise ValueError("must contain no spaces or control characters: write %20 for a space")
        before, _, query = rest.partition("?")
        authority, _, path = before.partition("/")
        user_part, at, host_part = authority.rpartition("@")
        if "@" in user_part:
            raise ValueError("must name user and password with %40 for each @ in them")
        user, colon, password = user_part.partition(":")
        parameters = _parse_conninfo_parameters(query)
        query_hosts = parameters.pop("host", None)
        names = [_decode_postgres_url_part(name) for name in host_part.split(",")]
        if query_hosts is not None:  # overrides the authority, as in SQLAlchemy and libpq
            names = [name for text in query_hosts for name in text.split(",")]
        hosts = _parse_postgres_hosts(names, parameters.pop("port", None))
        single = {name: values[-1] for name, values in parameters.items()}
        user_name = single.pop("user", _decode_postgres_url_part(user) if at else "")
        secret = single.pop("password", _decode_postgres_url_part(password) if colon else "")
        database = single.pop("dbname", _decode_postgres_url_part(path))
        if not database:
            raise ValueError(f"must name a database, as in {EXAMPLE}")
        if single.pop("ssl", "") == "true":  # as JDBC spells it, and as libpq takes it
            single.setdefault("sslmode", "require")
        _check_conninfo_parameters(single)
        single.pop("client_encoding", None)
        if "sslrootcert" in single:  # libpq would accept any certificate, and no TLS at all
            single.setdefault("sslmode", "verify-full")
        return cls(hosts, database, user_name or None, secret or None, single)

    def connection_parameters(self, application_name: str) -> dict[str, str]:
        login = {"user": self.user, "password": self.password}
        return {
            **_CONNINFO_DEFAULTS,
            "application_name": application_name,
            # Not `read-write`: default_transaction_read_only makes it untrue of a primary.
            **({"target_session_attrs": "primary"} if len(self.hosts) > 1 else {}),
            **self.parameters,
            "client_encoding": "UTF8",
            "host": ",".join(host for host, _ in self.hosts),
            "port": ",".join(str(port) for _, port in self.hosts),
            "dbname": self.database,
            **{name: value for name, value in login.items() if value is not None},
        }

    def client_conninfo(self, application_name: str) -> str:
        return make_conninfo("", **{**self.connection_parameters(application_name), "password": None})

    def client_environment(self) -> dict[str, str]:
        """Return the environment for such a program: libpq's only variable in it is the password."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return environment | ({"PGPASSWORD": self.password} if self.password is not None else {})

    @property
    def oldest_client(self) -> int:
        """The oldest major version of the client programs that knows every parameter of this address; 0 for any."""
        return max((ADDRESS_CLIENT_VERSIONS.get(name, 0) for name in self.parameters), default=0)

    def without_password(self, text: str) -> str:
        return text.replace(self.password, "***") if self.password else text


def libpq_variables() -> list[str]:
    return sorted(name for name in os.environ if name.startswith("PG"))


def clear_libpq_environment() -> None:
    """Remove libpq's variables from this process: libpq uses them for every parameter that a connection omits."""
    for name in libpq_variables():
        os.environ.pop(name, None)


def _decode_postgres_url_part(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("must write a % as %25, and other special characters as their % codes")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must write special characters as the % codes of UTF-8") from None
    if not is_storable(decoded):
        raise ValueError("must not contain %00")
    return decoded


def _parse_conninfo_parameters(query: str) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError("must give parameters as ?name=value&name=value")
        if name == "options":
            value = value.replace("+", " ")  # as SQLAlchemy writes a space; no option has a plus of its own
        parameters.setdefault(_decode_postgres_url_part(name), []).append(_decode_postgres_url_part(value))
    if any(len(values) > 1 for name, values in parameters.items() if name != "host"):
        raise ValueError("must give each parameter once")
    return parameters


def _parse_postgres_hosts(names: list[str], ports: list[str] | None) -> tuple[tuple[str, int], ...]:
    endpoints = [_parse_postgres_host(name) for name in names]
    listed = ports[0].split(",") if ports is not None else []
    if len(listed) not in {0, 1, len(endpoints)}:
        raise ValueError("must give one port, or one for each host")
    if len(listed) == 1:
        listed *= len(endpoints)
    numbers = listed or [port for _, port in endpoints]
    return tuple(
        (host, _parse_postgres_address_port(number)) for (host, _), number in zip(endpoints, numbers, strict=True)
    )


def _parse_postgres_host(text: str) -> tuple[str, str]:
    # Host and port of `host:port`, `[::1]:port`, `::1` or a socket directory.
    if text.startswith(("/", "@")):
        folder, colon, port = text.rpartition(":")
        return (folder, port) if colon and port.isdigit() else (text, "")
    if match := re.fullmatch(r"\[([0-9A-Fa-f:.]+(?:%\w+)?)\](?::(\d*))?", text):
        return match[1], match[2] or ""
    if text.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+(?:%\w+)?", text):
        return text, ""
    match = re.fullmatch(r"([^:\[\]\s/?#@]*)(?::(\d*))?", text)
    if match is None:
        raise ValueError("must name hosts as host:5432, and special characters of a password as their % codes")
    if not match[1]:
        raise ValueError(f"must name a host, as in {EXAMPLE}, or a socket's directory, as in ?host=/run/postgresql")
    return match[1], match[2] or ""


def _parse_postgres_address_port(text: str) -> int:
    if not text:
        return DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError("must name a port between 1 and 65535")
    return int(text)


def _check_conninfo_parameters(parameters: Mapping[str, str]) -> None:
    for name, value in parameters.items():
        if name in _REFUSED_PARAMETERS:
            raise ValueError(_REFUSED_PARAMETERS[name])
        if name in _CHOICE_PARAMETERS and value not in _CHOICE_PARAMETERS[name]:
            choices = [choice for choice in _CHOICE_PARAMETERS[name] if choice.islower()]
            raise ValueError(f"must give {name} as {', '.join(choices[:-1])} or {choices[-1]}")
        if name in _NUMBER_PARAMETERS and not (value.isascii() and value.isdigit()):
            raise ValueError(f"must give {name} as a whole number")
        if name == "connect_timeout" and not int(value):
            raise ValueError("must give connect_timeout as at least 1 second: 0 would wait forever")
        if name not in {*_CHOICE_PARAMETERS, *_NUMBER_PARAMETERS, *_TEXT_PARAMETERS}:
            label = f"the parameter {name}" if re.fullmatch(r"[a-z_]{1,40}", name) else "a parameter"
            raise ValueError(f"must not hold {label}, which PostgreSQL's clients do not know")
