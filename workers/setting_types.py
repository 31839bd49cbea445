"""The types of settings: checks and normal forms of URLs, certificates, addresses and secrets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import replace
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from models.db.postgres_address import PostgresAddress
from workers.broker.redis_url import RedisUrl

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TlsFiles = tuple[Path | None, ...]
"""The certificate of the authority, the client's certificate, and its key."""


def normalize_postgres_url_setting(url: str, tls_files: TlsFiles = (None, None, None)) -> str:
    address = PostgresAddress.parse(url)
    files = zip(("sslrootcert", "sslcert", "sslkey"), tls_files, strict=True)
    added = {name: str(path) for name, path in files if path is not None and name not in address.parameters}
    rest = url.strip().partition("://")[2]
    query = urlencode(added, quote_via=quote)
    return f"postgresql+psycopg://{rest}{('&' if '?' in rest else '?') + query if query else ''}"


def _normalize_redis_url(url: str, tls_files: TlsFiles) -> str:
    address = RedisUrl.parse(url)
    if address.tls_options:
        files = zip(("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"), tls_files, strict=True)
        added = {name: str(path) for name, path in files if path is not None}
        address = replace(address, tls_options=added | dict(address.tls_options))
    return str(RedisUrl.parse(str(address)))


def _normalize_tls_file(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as problem:
        raise ValueError(f"must name a file that this account can read ({problem.strerror})") from None
    return path.absolute()


def _validate_smtp_url(url: str, _tls_files: TlsFiles) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ValueError("must look like smtp://user:password@host:587?starttls=1")
    _ = parts.port  # raises for a port that is no number
    return url.strip()


def _normalize_web_url(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with https:// or http://")
    return url.strip().rstrip("/")


def _validate_sender(text: str) -> str:
    if "@" not in parseaddr(text)[1] or re.search(r"[\r\n]", text):
        raise ValueError("must be one email address, with or without a name before it")
    return text


def _validate_login(text: str, _tls_files: TlsFiles) -> str:
    if not all(text.partition(":")):
        raise ValueError("must be user:password")
    return text


def parse_networks(text: str) -> list[Network]:
    return [ipaddress.ip_network(word.strip()) for word in text.split(",") if word.strip()]


def _validate_networks(text: str) -> str:
    parse_networks(text)
    return text


def _validate_link_secret(text: str, _tls_files: TlsFiles) -> str:
    if len(text.encode()) < 32:
        raise ValueError("must have at least 32 characters, chosen at random")
    return text


def _secret_type(normalize: Callable[[str, TlsFiles], str]) -> BeforeValidator:
    # Our own defaults are validated too.
    def validate(value: str | SecretStr, info: ValidationInfo) -> str:
        files = tuple(info.data.get(name) for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"))
        return normalize(value.get_secret_value() if isinstance(value, SecretStr) else value, files)

    return BeforeValidator(validate)


PostgresUrl = Annotated[SecretStr, _secret_type(normalize_postgres_url_setting)] | None
ServerRedisUrl = Annotated[SecretStr, _secret_type(_normalize_redis_url)] | None
SmtpUrl = Annotated[SecretStr, _secret_type(_validate_smtp_url)] | None
WebUrl = Annotated[str, AfterValidator(_normalize_web_url)]
TlsFile = Annotated[Path, AfterValidator(_normalize_tls_file)] | None
EmailSender = Annotated[str, AfterValidator(_validate_sender)]
Login = Annotated[SecretStr, _secret_type(_validate_login)] | None
LinkSecret = Annotated[SecretStr, _secret_type(_validate_link_secret)] | None
Networks = Annotated[str, AfterValidator(_validate_networks)]
ListenAddress = Annotated[str, Field(min_length=1)]
ListenPort = Annotated[int, Field(ge=0, le=65535)]
