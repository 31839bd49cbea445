"""Addresses of Redis and Valkey: which ones settings accept, and the one way in which every program connects to them.

An address is parsed once, here, and written in one form that Celery, kombu and our own clients understand. What one of them
could not use is refused, with a sentence that holds nothing of the address: it may contain a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

if TYPE_CHECKING:
    from redis import Redis

SCHEMES = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "redis+socket",
    "redis+socket": "redis+socket",
    "valkey+socket": "redis+socket",
}
MAX_TIMEOUT_SECONDS = 60.0
MIN_SOCKET_TIMEOUT_SECONDS = 2.0
"""Workers wait a second at a time for their next message; a shorter timeout would cut them off while nothing is wrong."""
CERTIFICATE_CHECKS = {
    "required": "required",
    "optional": "optional",
    "none": "none",
    "CERT_REQUIRED": "required",
    "CERT_OPTIONAL": "optional",
    "CERT_NONE": "none",
}


def _seconds(least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not least <= (seconds := float(text)) <= MAX_TIMEOUT_SECONDS:
            raise ValueError
        return seconds

    return parse


def _whole_seconds(text: str) -> int:
    if not 1 <= (seconds := int(text)) <= MAX_TIMEOUT_SECONDS:
        raise ValueError
    return seconds


def _switch(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _file(text: str) -> str:
    with Path(text).open("rb"):
        return str(Path(text).absolute())


def _folder(text: str) -> str:
    next(Path(text).iterdir(), None)
    return str(Path(text).absolute())


def _client_name(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,64}", text):
        raise ValueError
    return text


_CLIENT_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "socket_timeout": (_seconds(MIN_SOCKET_TIMEOUT_SECONDS), "must be 2 to 60 seconds"),
    "socket_connect_timeout": (_seconds(0.1), "must be 0.1 to 60 seconds"),
    "socket_keepalive": (_switch, "must be true or false"),
    "health_check_interval": (_whole_seconds, "must be 1 to 60 whole seconds"),
    "client_name": (_client_name, "must be letters, digits and signs without spaces"),
}
_TLS_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "ssl_cert_reqs": (CERTIFICATE_CHECKS.__getitem__, "must be required, optional or none"),
    "ssl_check_hostname": (_switch, "must be true or false"),
    "ssl_ca_certs": (_file, "must name a file that this account can read"),
    "ssl_ca_path": (_folder, "must name a folder that this account can read"),
    "ssl_certfile": (_file, "must name a file that this account can read"),
    "ssl_keyfile": (_file, "must name a file that this account can read"),
}
ONE_SERVER = (
    "must name one server, not a list of brokers: give one address that follows a failover, a proxy's or a DNS name"
)
_SEVERAL_SERVERS = ("sentinel", "redis+sentinel", "redis+cluster", "rediss+cluster")
_IN_THE_URL = ("db", "virtual_host", "username", "password")


@dataclass(frozen=True)
class RedisUrl:
    """One server's address, parsed. `path` is a Unix socket's, and then there are no host and port."""

    host: str = "localhost"
    port: int | None = None
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    client_options: Mapping[str, Any] = field(default_factory=dict)
    tls_options: Mapping[str, Any] = field(default_factory=dict)
    """Empty without TLS; with it, whether certificates are checked is always said."""

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Raise ValueError, with a sentence that shows nothing of the address, for one that some program could not use."""
        scheme, place, query = _split(url.strip())
        if re.search(r"[;,]", place.partition("/")[0].rpartition("@")[2]):
            raise ValueError(ONE_SERVER)
        try:
            parts = urlsplit(f"http://{place}")
            host, port = unquote(parts.hostname or "") or "localhost", parts.port
        except ValueError:
            raise ValueError("must have a host and a port number, as in redis://:password@host:6379/0") from None
        given = _query(query)
        path = _socket_path(parts) if scheme == "redis+socket" else None
        return cls(
            host,
            port,
            path,
            username=unquote(parts.username or "") or given.get("username"),
            password=unquote(parts.password or "") or given.get("password"),
            database=_database(parts.path.strip("/") if path is None else "", given),
            client_options=_options(given, _CLIENT_OPTIONS),
            tls_options=_tls_options(given, scheme),
        )

    def with_database(self, number: int) -> RedisUrl:
        """The same server's database of this number."""
        return replace(self, database=number)

    def __str__(self) -> str:
        """The one form that is handed on: Celery's spelling, with everything in it, the password too."""
        return self._text({**self.client_options, **self.tls_options})

    @property
    def kombu_url(self) -> str:
        """What kombu can parse of it; options go to kombu by themselves."""
        return self._text({})

    def masked(self, mask: str = "**") -> str:
        """The address for people: without its password and options."""
        login = f"{quote(self.username or '', safe='')}:{mask}@" if self.password else self._login()
        return self._text({}, login).partition("?")[0]

    def connection_options(self) -> dict[str, Any]:
        """What redis-py's connection pools take, `connection_class` among it."""
        import redis

        options: dict[str, Any] = {"db": self.database, "username": self.username, "password": self.password}
        options |= self.client_options
        if self.path is not None:
            options.pop("socket_keepalive", None)
            return options | {"connection_class": redis.UnixDomainSocketConnection, "path": self.path}
        options |= {"host": self.host, "port": self.port or 6379}
        if self.tls_options:
            options |= {"connection_class": redis.SSLConnection, **self.tls_options}
        return options

    def _text(self, options: Mapping[str, Any], login: str | None = None) -> str:
        login = self._login() if login is None else login
        query = {name: _written(value) for name, value in sorted(options.items())}
        if self.path is not None:
            return f"redis+socket://{login}{quote(self.path)}?{urlencode({'virtual_host': self.database} | query)}"
        scheme = "rediss" if self.tls_options else "redis"
        return f"{scheme}://{login}{self._place()}/{self.database}{'?' if query else ''}{urlencode(query)}"

    def _login(self) -> str:
        if self.username is None and self.password is None:
            return ""
        user = quote(self.username or "", safe="")
        return f"{user}:{quote(self.password, safe='')}@" if self.password is not None else f"{user}@"

    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        return f"{host}:{self.port}" if self.port else host


def connect(url: str, *, timeout: float, **options: Any) -> Redis:
    """A client for a program's own questions; it connects when it is first used, and each question takes `timeout` at most.

    Options of the address count too, except for timeouts above this one. Other options are redis-py's.
    """
    import redis

    given = RedisUrl.parse(url).connection_options()
    for name in ("socket_timeout", "socket_connect_timeout"):
        given[name] = min(timeout, given.get(name, timeout))
    return redis.Redis.from_pool(redis.ConnectionPool(**given, **options))


def _query(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in _IN_THE_URL and name not in _CLIENT_OPTIONS and name not in _TLS_OPTIONS:
            known = ", ".join((*_CLIENT_OPTIONS, *_TLS_OPTIONS))
            raise ValueError(f"has an option that no program here would follow; there are {known}")
        if name in given:
            raise ValueError(f"has the option {name} twice")
        given[name] = value
    return given


def _options(given: Mapping[str, str], known: Mapping[str, tuple[Callable[[str], Any], str]]) -> dict[str, Any]:
    found = {}
    for name, (parse, fix) in known.items():
        if name in given:
            try:
                found[name] = parse(given[name])
            except (ValueError, KeyError, OSError):
                raise ValueError(f"has an option {name} that does not fit: it {fix}") from None
    return found


def _tls_options(given: Mapping[str, str], scheme: str) -> dict[str, Any]:
    found = _options(given, _TLS_OPTIONS)
    if scheme != "rediss":
        if found:
            raise ValueError("has options for TLS, which is spoken only where it begins with rediss://")
        return {}
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if "ssl_ca_certs" in found or "ssl_ca_path" in found:
            context.load_verify_locations(found.get("ssl_ca_certs"), found.get("ssl_ca_path"))
        if "ssl_certfile" in found or "ssl_keyfile" in found:
            context.load_cert_chain(found["ssl_certfile"], found.get("ssl_keyfile"), password=lambda: "")
    except (KeyError, OSError):  # SSLError is one
        raise ValueError("names certificate files that hold no certificate, or no key that fits it") from None
    return {"ssl_cert_reqs": "required"} | found


def _split(url: str) -> tuple[str, str, str]:
    """Celery's scheme, what stands before the query, and the query."""
    written, separator, rest = url.partition("://")
    if written in _SEVERAL_SERVERS:
        raise ValueError("must name one server: neither Sentinel nor Redis Cluster is supported")
    if not separator or written not in SCHEMES:
        raise ValueError("must begin with redis://, rediss:// or redis+socket://")
    if re.search(r"[;,]\s*[a-zA-Z+]+://", rest):
        raise ValueError(ONE_SERVER)
    if any(ord(letter) <= 32 for letter in rest):
        raise ValueError("must have no spaces or line breaks; in a password a space is written as %20")
    place, _, query = rest.partition("?")
    netloc, _, path = place.partition("/")
    if "#" in rest or "@" in path + query or re.search(r"[\[\]]", netloc.rpartition("@")[0]):
        raise ValueError(
            "must end with a database number, and have the signs / ? # [ ] @ of a user or password written as "
            "%2F %3F %23 %5B %5D %40"
        )
    return SCHEMES[written], place, query


def _database(in_path: str, given: Mapping[str, str]) -> int:
    named = {number for number in (in_path, given.get("db"), given.get("virtual_host")) if number}
    if len(named) > 1:
        raise ValueError("must name one database number, not two")
    if not all(re.fullmatch(r"[0-9]{1,9}", number) for number in named):
        raise ValueError("must end with a database number, as in redis://:password@host:6379/0")
    return int(named.pop()) if named else 0


def _socket_path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or not path.strip("/"):
        raise ValueError("must name the socket by its whole path, as in redis+socket:///run/redis/redis.sock")
    return path


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
