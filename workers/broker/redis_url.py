"""URLs of Redis and Valkey: which URLs are accepted, and the single way every program connects.

A broker's URL is parsed once, here, and written in one form that Celery, kombu and redis-py understand.  A Redis URL
that one of these cannot use is rejected, with a message that contains no part of it: it may hold Redis' password.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from policies.texts import has_blank_or_control

if TYPE_CHECKING:
    from redis import Redis

REDIS_SCHEMES = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "redis+socket",
    "redis+socket": "redis+socket",
    "valkey+socket": "redis+socket",
    "sentinel": "sentinel",
    "redis+sentinel": "sentinel",
}
MAX_REDIS_TIMEOUT_SECONDS = 60.0
MIN_SOCKET_TIMEOUT_SECONDS = 2.0
"""Workers wait one second at a time for their next message; a shorter timeout would cut healthy connections."""
REDIS_RESPONSE_TIMEOUT_SECONDS = 2.0
"""For a command of our own clients; a broker that takes longer counts as not answering."""
CELERY_CONNECTION_OPTIONS = {
    "socket_timeout": 10,  # the default waits without end; must exceed the blocking pop's second
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 10,  # notices a half-open connection within about 20 s
}
"""Of Celery's connections to the broker and to the result backend, unless a URL says something else."""


def _readable_type(is_kind: Callable[[Path], bool]) -> TypeAdapter[str]:
    def resolve(text: str) -> str:
        if not (is_kind(Path(text)) and os.access(text, os.R_OK)):
            raise ValueError
        return str(Path(text).absolute())

    return TypeAdapter(Annotated[str, AfterValidator(resolve)])


def _seconds_type(kind: Any, minimum: float) -> TypeAdapter[Any]:
    return TypeAdapter(Annotated[kind, Field(ge=minimum, le=MAX_REDIS_TIMEOUT_SECONDS)])


_BOOL = TypeAdapter(bool)
_CERTIFICATE_CHECKS: TypeAdapter[str] = TypeAdapter(
    Annotated[Literal["required", "optional", "none"], BeforeValidator(lambda text: text.removeprefix("CERT_").lower())]
)
_READABLE_FILE, _READABLE_FOLDER = _readable_type(Path.is_file), _readable_type(Path.is_dir)
_CLIENT_OPTIONS: dict[str, tuple[TypeAdapter[Any], str]] = {
    "socket_timeout": (_seconds_type(float, MIN_SOCKET_TIMEOUT_SECONDS), "must be 2 to 60 seconds"),
    "socket_connect_timeout": (_seconds_type(float, 0.1), "must be 0.1 to 60 seconds"),
    "socket_keepalive": (_BOOL, "must be true or false"),
    "health_check_interval": (_seconds_type(int, 1), "must be 1 to 60 whole seconds"),
    "client_name": (
        TypeAdapter(Annotated[str, Field(pattern="^[!-~]{1,64}$")]),
        "must be letters, digits and signs without spaces",
    ),
}
_TLS_OPTIONS: dict[str, tuple[TypeAdapter[Any], str]] = {
    "ssl_cert_reqs": (_CERTIFICATE_CHECKS, "must be required, optional or none"),
    "ssl_check_hostname": (_BOOL, "must be true or false"),
    "ssl_ca_certs": (_READABLE_FILE, "must name a file that this account can read"),
    "ssl_ca_path": (_READABLE_FOLDER, "must name a folder that this account can read"),
    "ssl_certfile": (_READABLE_FILE, "must name a file that this account can read"),
    "ssl_keyfile": (_READABLE_FILE, "must name a file that this account can read"),
}
ONE_SERVER = (
    "must name one server, not a list of brokers: give one address that follows a failover, a proxy's or a DNS name, "
    "or sentinels: sentinel://:password@h1:26379,h2:26379/0?master=unwind"
)
_UNSUPPORTED = ("redis+cluster", "rediss+cluster", "rediss+sentinel", "sentinels")
_URL_PARTS = re.compile(
    r"((?P<username>[^:/?#\[\]]*)(:(?P<password>[^/?#\[\]]*))?@)?"
    r"(?P<hosts>[^/?#@]*)(?P<path>[^?#@]*)(\?(?P<query>[^#@]*))?"
)
_SENTINEL_PORT = 26379
_SENTINEL_OPTIONS = ("master", "sentinel_username", "sentinel_password")
_SET_BY_URL = ("db", "virtual_host", "username", "password")


@dataclass(frozen=True)
class RedisUrl:
    """A parsed server URL.  With `path`, a Unix socket's, host and port are unused."""

    host: str = "localhost"
    port: int | None = None
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    client_options: Mapping[str, Any] = field(default_factory=dict)
    tls_options: Mapping[str, Any] = field(default_factory=dict)
    """Empty without TLS; with it, `ssl_cert_reqs` is always set."""
    primary_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """With these, of `PrimaryConnection`, sentinels name the server; host, port and path are unused."""

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Parse a URL.  Raises ValueError, with a message that contains no part of the URL, if some program could not
        use it."""
        scheme, parts = _split_redis_url(url.strip())
        has_sentinels = scheme == "sentinel"
        servers = _parse_redis_servers(parts["hosts"], has_sentinels=has_sentinels)
        options = _parse_redis_query(parts["query"] or "", has_sentinels=has_sentinels)
        is_socket = scheme == "redis+socket"
        if is_socket and (parts["hosts"] or not parts["path"].strip("/")):
            raise ValueError("must name the socket by its whole path, as in redis+socket:///run/redis/redis.sock")
        host, port = servers[0]
        return cls(
            host,
            port,
            unquote(parts["path"]) if is_socket else None,
            username=unquote(parts["username"] or "") or options.get("username"),
            password=unquote(parts["password"] or "") or options.get("password"),
            database=_parse_redis_database_number("" if is_socket else parts["path"].strip("/"), options),
            client_options=_parse_redis_options(options, _CLIENT_OPTIONS),
            tls_options=_parse_redis_tls_options(options, scheme),
            primary_options={
                "sentinels": tuple((name, number or _SENTINEL_PORT) for name, number in servers),
                "primary_name": options["master"],
                "sentinel_login": {
                    name.removeprefix("sentinel_"): options[name] for name in _SENTINEL_OPTIONS[1:] if name in options
                },
            }
            if has_sentinels
            else {},
        )

    def __str__(self) -> str:
        # The complete URL in Celery's form, password included.
        login = {f"sentinel_{name}": value for name, value in self.primary_options.get("sentinel_login", {}).items()}
        return self._url_text({**self.client_options, **self.tls_options, **login})

    @property
    def kombu_url(self) -> str:
        """The URL for kombu, which gets the options in other ways, the sentinels too."""
        host = self.primary_options["sentinels"][0][0] if self.primary_options else self.host
        return replace(self, primary_options={}, host=host)._url_text({})

    def masked(self, mask: str = "**") -> str:
        return replace(self, password=self.password and mask)._url_text({}).partition("?")[0]

    def connection_options(self) -> dict[str, Any]:
        import redis  # noqa: PLC0415 - the CLI reads settings without it

        options: dict[str, Any] = {"db": self.database, "username": self.username, "password": self.password}
        options |= self.client_options
        if self.primary_options:
            from workers.broker.sentinel import PrimaryConnection  # noqa: PLC0415 - as above

            return options | {"connection_class": PrimaryConnection, **self.primary_options}
        if self.path is not None:
            options.pop("socket_keepalive", None)
            return options | {"connection_class": redis.UnixDomainSocketConnection, "path": self.path}
        options |= {"host": self.host, "port": self.port or 6379}
        if self.tls_options:
            options |= {"connection_class": redis.SSLConnection, **self.tls_options}
        return options

    def _url_text(self, options: Mapping[str, Any]) -> str:
        login = quote(self.username or "", safe="")
        if self.password is not None:
            login += f":{quote(self.password, safe='*')}"
        login += "" if (self.username, self.password) == (None, None) else "@"
        query = {name: _format_client_option(value) for name, value in sorted(options.items())}
        if self.path is not None:
            return f"redis+socket://{login}{quote(self.path)}?{urlencode({'virtual_host': self.database} | query)}"
        if self.primary_options:
            hosts = ",".join(_format_redis_host(host, port) for host, port in self.primary_options["sentinels"])
            query = {"master": self.primary_options["primary_name"]} | query
            return f"sentinel://{login}{hosts}/{self.database}?{urlencode(query)}"
        scheme = "rediss" if self.tls_options else "redis"
        host = _format_redis_host(self.host, self.port)
        return f"{scheme}://{login}{host}/{self.database}{'?' if query else ''}{urlencode(query)}"


def connect_to_redis(url: str, *, timeout: float = REDIS_RESPONSE_TIMEOUT_SECONDS, **options: Any) -> Redis:
    """Return a redis-py client that connects when first used and waits at most `timeout` seconds per command.

    Options of the URL apply, except for longer timeouts.  `options` are redis-py's.
    """
    import redis  # noqa: PLC0415 - the CLI reads settings without it

    parameters = RedisUrl.parse(url).connection_options()
    for name in ("socket_timeout", "socket_connect_timeout"):
        parameters[name] = min(timeout, parameters.get(name, timeout))
    return redis.Redis.from_pool(redis.ConnectionPool(**parameters, **options))


def without_redis_password(text: str, url: str) -> str:
    password = urlsplit(url).password or ""
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


def _format_redis_host(name: str, port: int | None) -> str:
    host = f"[{name}]" if ":" in name else quote(name, safe="")
    return f"{host}:{port}" if port else host


def _parse_redis_servers(hosts: str, *, has_sentinels: bool) -> list[tuple[str, int | None]]:
    if ";" in hosts or ("," in hosts and not has_sentinels):
        raise ValueError(ONE_SERVER)
    try:
        servers = [urlsplit(f"//{host}") for host in hosts.split(",")]
        return [(unquote(server.hostname or "") or "localhost", server.port) for server in servers]
    except ValueError:
        raise ValueError("must have a host and a port number, as in redis://:password@host:6379/0") from None


def _parse_redis_query(text: str, *, has_sentinels: bool) -> dict[str, str]:
    supported = (*_CLIENT_OPTIONS, *_TLS_OPTIONS, *(_SENTINEL_OPTIONS if has_sentinels else ()))
    options: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in _SET_BY_URL and name not in supported:
            raise ValueError(f"has an option that is not supported; supported options are {', '.join(supported)}")
        if name in options:
            raise ValueError(f"has the option {name} twice")
        options[name] = value
    if has_sentinels and not options.get("master"):
        raise ValueError("must name what the sentinels watch, as in sentinel://h1:26379,h2:26379/0?master=unwind")
    return options


def _parse_redis_options(
    options: Mapping[str, str], known: Mapping[str, tuple[TypeAdapter[Any], str]]
) -> dict[str, Any]:
    parsed = {}
    for name, (option_type, fix) in known.items():
        if name in options:
            try:
                parsed[name] = option_type.validate_python(options[name])
            except ValidationError:
                raise ValueError(f"has an invalid option {name}: it {fix}") from None
    return parsed


def _parse_redis_tls_options(options: Mapping[str, str], scheme: str) -> dict[str, Any]:
    parsed = _parse_redis_options(options, _TLS_OPTIONS)
    if scheme != "rediss":
        if parsed:
            raise ValueError("has options for TLS, which is used only with rediss://")
        return {}
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if "ssl_ca_certs" in parsed or "ssl_ca_path" in parsed:
            context.load_verify_locations(parsed.get("ssl_ca_certs"), parsed.get("ssl_ca_path"))
        if "ssl_certfile" in parsed or "ssl_keyfile" in parsed:
            context.load_cert_chain(parsed["ssl_certfile"], parsed.get("ssl_keyfile"), password=lambda: "")
    except (KeyError, OSError):  # SSLError is one
        raise ValueError("names certificate files with no certificate, or with no matching key") from None
    return {"ssl_cert_reqs": "required"} | parsed


def _split_redis_url(url: str) -> tuple[str, re.Match[str]]:
    # Celery's scheme, and the parts.
    scheme, separator, rest = url.partition("://")
    if scheme in _UNSUPPORTED:
        raise ValueError("must name one server or Sentinel without TLS: Redis Cluster is not supported")
    if not separator or scheme not in REDIS_SCHEMES:
        raise ValueError("must begin with redis://, rediss://, redis+socket:// or sentinel://")
    if re.search(r"[;,]\s*[a-zA-Z+]+://", rest):
        raise ValueError(ONE_SERVER)
    if has_blank_or_control(rest):
        raise ValueError("must have no spaces or line breaks; in a password a space is written as %20")
    parts = _URL_PARTS.fullmatch(rest)
    if parts is None:
        raise ValueError(
            "must end with a database number, and have the signs / ? # [ ] @ of a user or password written as "
            "%2F %3F %23 %5B %5D %40"
        )
    return REDIS_SCHEMES[scheme], parts


def _parse_redis_database_number(in_path: str, options: Mapping[str, str]) -> int:
    numbers = {number for number in (in_path, options.get("db"), options.get("virtual_host")) if number}
    if len(numbers) > 1:
        raise ValueError("must name one database number, not two")
    if not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        raise ValueError("must end with a database number, as in redis://:password@host:6379/0")
    return int(numbers.pop()) if numbers else 0


def _format_client_option(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
