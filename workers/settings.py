"""The settings of an installation, read from environment variables: servers, mail, data directory, ports, logging.

Durations, fees and limits are no settings: they are dated terms in the database.  Only this module reads the
environment; every variable is in `.env.example`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from workers.broker.redis_url import RedisUrl
from workers.embedded.client import ServerUrls, embedded_servers, embedded_servers_until_exit, running_servers
from workers.setting_types import (
    EmailSender,
    LinkSecret,
    ListenAddress,
    ListenPort,
    Login,
    Networks,
    PostgresUrl,
    ServerRedisUrl,
    SmtpUrl,
    TlsFile,
    WebUrl,
)

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
CHECKOUT = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (CHECKOUT / "run").exists()  # else an installed package, whose directory must not hold data


class SettingsError(ValueError):
    """A variable has an invalid value; the text has one line per variable, with the fix and without the value."""

    @classmethod
    def from_validation(cls, error: ValidationError) -> SettingsError:
        descriptions = {str(field.validation_alias): field.description for field in Settings.model_fields.values()}
        lines = []
        for problem in error.errors(include_input=False, include_url=False):  # a value may be a secret
            variable = str(problem["loc"][0])
            if variable not in descriptions:  # a default derived from another invalid variable
                continue
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{variable}: {message[:1].lower()}{message[1:]}. {descriptions[variable]}")
        return cls("\n".join(lines))


def _next_redis_database(validated: dict[str, Any]) -> SecretStr | None:
    broker = validated.get("broker_url")
    if not broker:
        return None
    address = RedisUrl.parse(broker.get_secret_value())
    return SecretStr(str(replace(address, database=address.database + 1)))


class Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        validate_default=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: f"UNWIND_{name.upper()}"),
    )

    tls_ca_file: TlsFile = Field(
        None,
        description="Authority (PEM) that signed the certificates of PostgreSQL and Redis; both are then verified.",
    )
    tls_cert_file: TlsFile = Field(None, description="Client certificate (PEM) for PostgreSQL and Redis.")
    tls_key_file: TlsFile = Field(
        None, description="Key of the client certificate (PEM, without a passphrase, readable by this account only)."
    )
    database_url: PostgresUrl = Field(
        None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL URL of the tables' owner. Unset: an embedded server with its data in UNWIND_DATA.",
    )
    app_database_url: PostgresUrl = Field(
        None,
        description="PostgreSQL URL for everything except migrations. Unset: DATABASE_URL with SET ROLE unwind_app.",
    )
    direct_database_url: PostgresUrl = Field(
        None,
        description="PostgreSQL URL past a pooler, for notifications, migrations and backups. Unset: the other URLs.",
    )
    broker_url: ServerRedisUrl = Field(
        None,
        validation_alias="CELERY_BROKER_URL",
        description="URL of Redis 6.2 or newer, or Valkey. Unset: an embedded Valkey with its data in UNWIND_DATA.",
    )
    result_backend: ServerRedisUrl = Field(
        default_factory=_next_redis_database,
        validation_alias="CELERY_RESULT_BACKEND",
        description="Redis URL where results are stored for their callers. Unset: the broker's next database.",
    )
    smtp_url: SmtpUrl = Field(
        None, description="smtp://user:password@host:587?starttls=1, the mail server. Unset: files in UNWIND_DATA/mail."
    )
    mail_from: EmailSender = Field("Unwind <no-reply@localhost>", description="Sender of every email.")
    site_name: str = Field(
        "the marketplace",
        min_length=1,
        max_length=80,
        pattern=r"^[^\r\n]+$",
        description="Name of the marketplace in emails.",
    )
    marketplace_url: WebUrl = Field("https://marketplace.invalid", description="Base URL of links in emails.")
    data_dir: Path = Field(
        CHECKOUT / ".unwind" if IS_CHECKOUT else Path("~/.local/share/unwind"),
        validation_alias="UNWIND_DATA",
        description="Directory for the embedded servers' data, logs and emails. Unset: .unwind in the checkout.",
    )
    concurrency: int = Field(
        2,
        ge=1,
        le=64,
        description="Processes per worker group. Three groups run, so the default of 2 starts six processes.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest level that is logged: DEBUG, INFO, WARNING or ERROR."
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="console for people, json (one object per line) for machines."
    )
    flower_address: ListenAddress = Field(
        "127.0.0.1",
        description="Address that Flower listens on. An address other than loopback requires UNWIND_FLOWER_LOGIN.",
    )
    flower_port: ListenPort = Field(0, description="Port that Flower listens on; 0 picks a free one and prints it.")
    flower_login: Login = Field(None, description="Login for Flower, as user:password. Unset: no login, loopback only.")
    flower_read_only: bool = Field(
        True, description="Whether Flower is read-only. If false, its users can call any task as any member."
    )
    metrics_address: ListenAddress = Field(
        "127.0.0.1",
        description="Address of /metrics, /livez and /readyz. They show numbers without ids and require no login.",
    )
    metrics_port: ListenPort = Field(
        0, description="Port of /metrics, /livez and /readyz; 0 picks a free one and prints it."
    )
    webhook_networks: Networks = Field(
        "", description="Networks of your own that webhooks may be in, such as 10.1.0.0/16; else public addresses only."
    )
    web_address: ListenAddress = Field(
        "127.0.0.1",
        description="Address of the HTTP interface. Elsewhere than on loopback it needs a proxy that speaks TLS.",
    )
    web_port: ListenPort = Field(0, description="Port of the HTTP interface; 0 picks a free one and prints it.")
    web_database_url: PostgresUrl = Field(
        None, description="PostgreSQL URL of the HTTP interface. Unset: DATABASE_URL with SET ROLE unwind_web."
    )
    web_link_secret: LinkSecret = Field(
        None,
        description="Secret with which the marketplace signs links to the Problem Order page. Unset: no such page.",
    )
    web_max_body_bytes: int = Field(
        2**20, ge=1024, le=2**24, description="Largest body of an HTTP request: 1 MB, at most 16 MB."
    )

    @property
    def migration_url(self) -> SecretStr | None:
        return self.direct_database_url or self.database_url

    @property
    def work_url(self) -> SecretStr | None:
        return self.app_database_url or self.database_url

    @property
    def listener_url(self) -> SecretStr | None:
        return self.direct_database_url or self.work_url

    @property
    def mail_dir(self) -> Path:
        return self.data_dir / "mail"

    @property
    def flower_dir(self) -> Path:
        return self.data_dir / "flower"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "logs"

    def with_servers(self, urls: ServerUrls) -> Settings:
        no_tls = "?sslmode=disable" if self.tls_ca_file is not None else ""  # the files are for other servers
        update = {}
        if self.database_url is None:
            update["database_url"] = SecretStr(urls.database_url + no_tls)
        if self.broker_url is None:
            update["broker_url"] = SecretStr(urls.broker_url)
            update["result_backend"] = self.result_backend or SecretStr(urls.result_backend)
        return self.model_copy(update=update)

    @contextlib.contextmanager
    def with_servers_running(self) -> Iterator[Settings]:
        if self.has_servers:
            yield self
        else:
            with embedded_servers(self.data_dir) as urls:
                yield self.with_servers(urls)

    def with_servers_until_exit(self) -> Settings:
        return self if self.has_servers else self.with_servers(embedded_servers_until_exit(self.data_dir))

    def environment(self) -> dict[str, str]:
        values = {variable: getattr(self, name) for name, variable in _VARIABLES.items()}
        return {
            variable: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for variable, value in values.items()
            if value is not None
        }

    @property
    def has_servers(self) -> bool:
        return self.database_url is not None and self.broker_url is not None


_VARIABLES = {name: str(field.validation_alias) for name, field in Settings.model_fields.items()}
_SECRET_VARIABLES = [
    _VARIABLES[name] for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
]


def load_settings(**overrides: Any) -> Settings:
    values: dict[str, Any] = {name: os.environ[name] for name in _VARIABLES.values() if os.environ.get(name)}
    values |= _read_secret_files()
    values |= {_VARIABLES[name]: value for name, value in overrides.items()}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError.from_validation(error) from None
    if settings.direct_database_url and not (
        settings.database_url or settings.app_database_url or settings.web_database_url
    ):
        raise SettingsError("UNWIND_DIRECT_DATABASE_URL: is the way past a pooler. Set DATABASE_URL too.")
    if settings.flower_address not in LOOPBACK_HOSTS and settings.flower_login is None:
        raise SettingsError(
            "UNWIND_FLOWER_ADDRESS: at this address other machines can open Flower, which shows the tasks of every "
            "order. Set UNWIND_FLOWER_LOGIN=user:password, or use 127.0.0.1."
        )
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


@contextlib.contextmanager
def settings_of_running_servers(alternative: str = "DATABASE_URL and CELERY_BROKER_URL") -> Iterator[Settings]:
    """Yield the settings for a command that starts no servers; raises `ClickException` if none are set or run."""
    settings = load_settings()
    if not settings.has_servers and running_servers(settings.data_dir) is None:
        raise click.ClickException(f"No servers are running here. Start them with `./run up`, or set {alternative}.")
    with settings.with_servers_running() as complete:
        yield complete


@lru_cache(maxsize=1)
def current_settings() -> Settings:
    """Return the settings of this process; without a broker in them, its embedded servers run from now on."""
    settings = load_settings()
    if settings.broker_url is not None:
        # Celery lets these variables override the configuration, so they must hold the normalized form.
        os.environ["CELERY_BROKER_URL"] = settings.broker_url.get_secret_value()
        if settings.result_backend is not None:
            os.environ["CELERY_RESULT_BACKEND"] = settings.result_backend.get_secret_value()
        return settings  # a producer, beat or Flower needs no database
    return settings.with_servers_until_exit()


def _read_secret_files() -> dict[str, str]:
    # Read secrets from the files named by `NAME_FILE`, as containers and systemd pass them; NAME itself takes
    # precedence.
    secrets = {}
    for name in _SECRET_VARIABLES:
        path = os.environ.get(f"{name}_FILE")
        if not path or os.environ.get(name):
            continue
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "it is not text"
            raise SettingsError(f"{name}_FILE: cannot be read ({reason}); it names a file that holds {name}.") from None
        # compose and systemd need these files also where there is no pooler and no mail server.
        if value or name not in ("UNWIND_DIRECT_DATABASE_URL", "UNWIND_SMTP_URL"):
            secrets[name] = value
    return secrets


def unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    known = {
        *_VARIABLES.values(),
        *(f"{name}_FILE" for name in _SECRET_VARIABLES),
        *("UNWIND_VENV", "UNWIND_SUPERVISED", "UNWIND_READY_FILE", "UNWIND_ALIVE_FILE", "UNWIND_WEB_DEMO"),
    }
    return sorted(name for name in environ if name.startswith("UNWIND_") and name not in known)
