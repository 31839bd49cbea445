"""URLs of Redis and Valkey: which URLs are accepted, and the single way every program connects.

A broker's URL is parsed once, here, and written in one form that Celery, kombu and redis-py understand.  A Redis URL
that one of these cannot use is rejected, with a message that contains no part of it: it may hold Redis' password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

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
REDIS_CERTIFICATE_CHECKS = {
    "required": "required",
    "optional": "optional",
    "none": "none",
    "CERT_REQUIRED": "required",
    "CERT_OPTIONAL": "optional",
    "CERT_NONE": "none",
}


def _redis_seconds_option(minimum: float, number: Callable[[str], float] = float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not minimum <= (seconds := number(text)) <= MAX_REDIS_TIMEOUT_SECONDS:
            raise ValueError
        return seconds

    return parse


def _redis_bool_option(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]


def _redis_file_option(text: str) -> str:
    with Path(text).open("rb"):
        return str(Path(text).absolute())


def _redis_folder_option(text: str) -> str:
    next(Path(text).iterdir(), None)
    return str(Path(text).absolute())


def _redis_client_name_option(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,64}", text):
        raise ValueError
    return text


_REDIS_CLIENT_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "socket_timeout": (_redis_seconds_option(MIN_SOCKET_TIMEOUT_SECONDS), "must be 2 to 60 seconds"),
    "socket_connect_timeout": (_redis_seconds_option(0.1), "must be 0.1 to 60 seconds"),
    "socket_keepalive": (_redis_bool_option, "must be true or false"),
    "health_check_interval": (_redis_seconds_option(1, int), "must be 1 to 60 whole seconds"),
    "client_name": (_redis_client_name_option, "must be letters, digits and signs without spaces"),
}
_REDIS_TLS_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "ssl_cert_reqs": (REDIS_CERTIFICATE_CHECKS.__getitem__, "must be required, optional or none"),
    "ssl_check_hostname": (_redis_bool_option, "must be true or false"),
    "ssl_ca_certs": (_redis_file_option, "must name a file that this account can read"),
    "ssl_ca_path": (_redis_folder_option, "must name a folder that this account can read"),
    "ssl_certfile": (_redis_file_option, "must name a file that this account can read"),
    "ssl_keyfile": (_redis_file_option, "must name a file that this account can read"),
}
ONE_SERVER = (
    "must name one server, not a list of brokers: give one address that follows a failover, a proxy's or a DNS name, "
    "or sentinels: sentinel://:password@h1:26379,h2:26379/0?master=unwind"
)
_UNSUPPORTED = ("redis+cluster", "rediss+cluster", "rediss+sentinel", "sentinels")
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
    sentinels: tuple[tuple[str, int], ...] = ()
    """If there are any, they name the server; host, port and path are unused."""
    primary_name: str = ""
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`username` and `password` for the sentinels; those above are for the server."""

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Parse a URL.  Raises ValueError, with a message that contains no part of the URL, if some program could not
        use it."""
        scheme, authority, query = _split_redis_url(url.strip())
        has_sentinels = scheme == "sentinel"
        netloc, slash, rest = authority.partition("/")
        login, at, hosts = netloc.rpartition("@")
        if re.search(";" if has_sentinels else "[;,]", hosts):
            raise ValueError(ONE_SERVER)
        try:
            urls = [urlsplit(f"http://{login}{at}{name}{slash}{rest}") for name in hosts.split(",")]
            servers = [(unquote(each.hostname or "") or "localhost", each.port) for each in urls]
        except ValueError:
            raise ValueError("must have a host and a port number, as in redis://:password@host:6379/0") from None
        parts, (host, port) = urls[0], servers[0]
        options = _parse_redis_query(query, has_sentinels=has_sentinels)
        if has_sentinels and not options.get("master"):
            raise ValueError("must name what the sentinels watch, as in sentinel://h1:26379,h2:26379/0?master=unwind")
        path = _parse_redis_socket_path(parts) if scheme == "redis+socket" else None
        return cls(
            host,
            port,
            path,
            username=unquote(parts.username or "") or options.get("username"),
            password=unquote(parts.password or "") or options.get("password"),
            database=_parse_redis_database_number(parts.path.strip("/") if path is None else "", options),
            client_options=_parse_redis_client_options(options, _REDIS_CLIENT_OPTIONS),
            tls_options=_parse_redis_tls_options(options, scheme),
            sentinels=tuple((name, number or _SENTINEL_PORT) for name, number in servers) if has_sentinels else (),
            primary_name=options.get("master", ""),
            sentinel_login={
                name.removeprefix("sentinel_"): options[name] for name in _SENTINEL_OPTIONS[1:] if name in options
            },
        )

    def with_database(self, number: int) -> RedisUrl:
        return replace(self, database=number)

    def __str__(self) -> str:
        # The complete URL in Celery's form, password included.
        sentinel_login = {f"sentinel_{name}": value for name, value in self.sentinel_login.items()}
        return self._url_text({**self.client_options, **self.tls_options, **sentinel_login})

    @property
    def kombu_url(self) -> str:
        """The URL for kombu, which gets the options in other ways, the sentinels too."""
        return (
            replace(self, sentinels=(), host=self.sentinels[0][0])._url_text({})
            if self.sentinels
            else self._url_text({})
        )

    @property
    def primary_options(self) -> dict[str, Any]:
        if not self.sentinels:
            return {}
        options = {"sentinels": self.sentinels, "primary_name": self.primary_name}
        return options | {"sentinel_login": dict(self.sentinel_login)}

    def masked(self, mask: str = "**") -> str:
        login = f"{quote(self.username or '', safe='')}:{mask}@" if self.password else self._url_login()
        return self._url_text({}, login).partition("?")[0]

    def connection_options(self) -> dict[str, Any]:
        import redis  # noqa: PLC0415 - the CLI reads settings without it

        options: dict[str, Any] = {"db": self.database, "username": self.username, "password": self.password}
        options |= self.client_options
        if self.sentinels:
            from workers.broker.sentinel import PrimaryConnection  # noqa: PLC0415 - as above

            return options | {"connection_class": PrimaryConnection, **self.primary_options}
        if self.path is not None:
            options.pop("socket_keepalive", None)
            return options | {"connection_class": redis.UnixDomainSocketConnection, "path": self.path}
        options |= {"host": self.host, "port": self.port or 6379}
        if self.tls_options:
            options |= {"connection_class": redis.SSLConnection, **self.tls_options}
        return options

    def _url_text(self, options: Mapping[str, Any], login: str | None = None) -> str:
        login = self._url_login() if login is None else login
        query = {name: _format_client_option(value) for name, value in sorted(options.items())}
        if self.path is not None:
            return f"redis+socket://{login}{quote(self.path)}?{urlencode({'virtual_host': self.database} | query)}"
        if self.sentinels:
            hosts = ",".join(_format_redis_host(host, port) for host, port in self.sentinels)
            return f"sentinel://{login}{hosts}/{self.database}?{urlencode({'master': self.primary_name} | query)}"
        scheme = "rediss" if self.tls_options else "redis"
        host = _format_redis_host(self.host, self.port)
        return f"{scheme}://{login}{host}/{self.database}{'?' if query else ''}{urlencode(query)}"

    def _url_login(self) -> str:
        if self.username is None and self.password is None:
            return ""
        user = quote(self.username or "", safe="")
        return f"{user}:{quote(self.password, safe='')}@" if self.password is not None else f"{user}@"


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


def _parse_redis_query(text: str, *, has_sentinels: bool) -> dict[str, str]:
    options: dict[str, str] = {}
    supported = (*_REDIS_CLIENT_OPTIONS, *_REDIS_TLS_OPTIONS, *(_SENTINEL_OPTIONS if has_sentinels else ()))
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in _SET_BY_URL and name not in supported:
            known = ", ".join(supported)
            raise ValueError(f"has an option that is not supported; supported options are {known}")
        if name in options:
            raise ValueError(f"has the option {name} twice")
        options[name] = value
    return options


def _parse_redis_client_options(
    options: Mapping[str, str], known: Mapping[str, tuple[Callable[[str], Any], str]]
) -> dict[str, Any]:
    parsed = {}
    for name, (parse, fix) in known.items():
        if name in options:
            try:
                parsed[name] = parse(options[name])
            except (ValueError, KeyError, OSError):
                raise ValueError(f"has an invalid option {name}: it {fix}") from None
    return parsed


def _parse_redis_tls_options(options: Mapping[str, str], scheme: str) -> dict[str, Any]:
    parsed = _parse_redis_client_options(options, _REDIS_TLS_OPTIONS)
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


def _split_redis_url(url: str) -> tuple[str, str, str]:
    # Celery's scheme, the part before the query, and the query.
    scheme, separator, rest = url.partition("://")
    if scheme in _UNSUPPORTED:
        raise ValueError("must name one server or Sentinel without TLS: Redis Cluster is not supported")
    if not separator or scheme not in REDIS_SCHEMES:
        raise ValueError("must begin with redis://, rediss://, redis+socket:// or sentinel://")
    if re.search(r"[;,]\s*[a-zA-Z+]+://", rest):
        raise ValueError(ONE_SERVER)
    if has_blank_or_control(rest):
        raise ValueError("must have no spaces or line breaks; in a password a space is written as %20")
    authority, _, query = rest.partition("?")
    netloc, _, path = authority.partition("/")
    if "#" in rest or "@" in path + query or re.search(r"[\[\]]", netloc.rpartition("@")[0]):
        raise ValueError(
            "must end with a database number, and have the signs / ? # [ ] @ of a user or password written as "
            "%2F %3F %23 %5B %5D %40"
        )
    return REDIS_SCHEMES[scheme], authority, query


def _parse_redis_database_number(in_path: str, options: Mapping[str, str]) -> int:
    numbers = {number for number in (in_path, options.get("db"), options.get("virtual_host")) if number}
    if len(numbers) > 1:
        raise ValueError("must name one database number, not two")
    if not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        raise ValueError("must end with a database number, as in redis://:password@host:6379/0")
    return int(numbers.pop()) if numbers else 0


def _parse_redis_socket_path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or not path.strip("/"):
        raise ValueError("must name the socket by its whole path, as in redis+socket:///run/redis/redis.sock")
    return path


def _format_client_option(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
