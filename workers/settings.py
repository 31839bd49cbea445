"""What may differ from one installation to the next, and which environment variable says so?

Where and how fast, never what is owed: durations, fees and limits are dated terms in the database. This is the only
place that reads the environment; every variable stands in `.env.example`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.db.postgres_address import PostgresAddress
from workers.broker.redis_url import RedisUrl
from workers.embedded import ServerUrls, embedded_servers, embedded_servers_until_exit

CHECKOUT = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (CHECKOUT / "run").exists()  # else installed as a package, whose folder is no place for data


class SettingsError(ValueError):
    """The environment does not fit; one line per variable, each with its fix and without its value."""


def normalize_postgres_url(url: str) -> str:
    PostgresAddress.parse(url)
    return f"postgresql+psycopg://{url.strip().partition('://')[2]}"


def _redis(url: str) -> str:
    return str(RedisUrl.parse(url))


def _smtp(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname:
        raise ValueError("must look like smtp://user:password@host:587?starttls=1")
    _ = parts.port  # raises for a port that is no number
    return url.strip()


def _web(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with https:// or http://")
    return url.strip().rstrip("/")


def _sender(text: str) -> str:
    if "@" not in parseaddr(text)[1] or re.search(r"[\r\n]", text):
        raise ValueError("must be one mail address, with or without a name before it")
    return text


def _login(text: str) -> str:
    if not all(text.partition(":")):
        raise ValueError("must be user:password")
    return text


def _secret(check: Callable[[str], str]) -> BeforeValidator:
    """A checked text that prints as stars; None stays None, and our own defaults are checked too."""

    def checked(value: str | SecretStr | None) -> str | None:
        if value is None:
            return None
        return check(value.get_secret_value() if isinstance(value, SecretStr) else value)

    return BeforeValidator(checked)


def _next_database(validated: dict[str, Any]) -> SecretStr | None:
    """The broker's second database: contract 1."""
    broker = validated.get("broker_url")
    if not broker:
        return None
    address = RedisUrl.parse(broker.get_secret_value())
    return SecretStr(str(address.with_database(address.database + 1)))


class Settings(BaseSettings):
    """One installation. Frozen; secrets print as stars; raises SettingsError through `load_settings`."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True, extra="ignore", case_sensitive=True)

    database_url: Annotated[SecretStr | None, _secret(normalize_postgres_url)] = Field(
        None,
        validation_alias="DATABASE_URL",
        description="PostgreSQL as the owner of the tables. Unset: an embedded server, data below UNWIND_DATA.",
    )
    app_database_url: Annotated[SecretStr | None, _secret(normalize_postgres_url)] = Field(
        None,
        validation_alias="UNWIND_APP_DATABASE_URL",
        description="PostgreSQL for everything but migrations. Unset: DATABASE_URL and SET ROLE unwind_app.",
    )
    broker_url: Annotated[SecretStr | None, _secret(_redis)] = Field(
        None,
        validation_alias="CELERY_BROKER_URL",
        description="Redis 6.2 or newer, or Valkey. Unset: an embedded server, data below UNWIND_DATA.",
    )
    result_backend: Annotated[SecretStr | None, _secret(_redis)] = Field(
        default_factory=_next_database,
        validation_alias="CELERY_RESULT_BACKEND",
        description="Where answers wait for their callers. Unset: the broker's next database.",
    )
    smtp_url: Annotated[SecretStr | None, _secret(_smtp)] = Field(
        None,
        validation_alias="UNWIND_SMTP_URL",
        description="Mail server, as smtp://user:password@host:587?starttls=1. Unset: files in UNWIND_DATA/mail.",
    )
    mail_from: Annotated[str, AfterValidator(_sender)] = Field(
        "Unwind <no-reply@localhost>",
        validation_alias="UNWIND_MAIL_FROM",
        description="Sender of every mail.",
    )
    site_name: str = Field(
        "the marketplace",
        validation_alias="UNWIND_SITE_NAME",
        min_length=1,
        max_length=80,
        pattern=r"^[^\r\n]+$",
        description="What mails call the marketplace.",
    )
    marketplace_url: Annotated[str, AfterValidator(_web)] = Field(
        "https://marketplace.invalid",
        validation_alias="UNWIND_MARKETPLACE_URL",
        description="Where links in mails lead.",
    )
    data_dir: Path = Field(
        CHECKOUT / ".unwind" if IS_CHECKOUT else Path("~/.local/share/unwind"),
        validation_alias="UNWIND_DATA",
        description="Folder for embedded servers' data, logs, mail files. Unset: .unwind in the checkout.",
    )
    concurrency: int = Field(
        2,
        validation_alias="UNWIND_CONCURRENCY",
        ge=1,
        le=64,
        description="Processes per worker group. Two groups run, so two cores are busy with 2.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        validation_alias="UNWIND_LOG_LEVEL",
        description="DEBUG, INFO, WARNING or ERROR.",
    )
    log_format: Literal["console", "json"] = Field(
        "console",
        validation_alias="UNWIND_LOG_FORMAT",
        description="console for people, json (one object a line) for machines.",
    )
    flower_address: str = Field(
        "127.0.0.1",
        validation_alias="UNWIND_FLOWER_ADDRESS",
        min_length=1,
        description="Address Flower listens on. Anything but loopback also needs UNWIND_FLOWER_LOGIN.",
    )
    flower_port: int = Field(
        0,
        validation_alias="UNWIND_FLOWER_PORT",
        ge=0,
        le=65535,
        description="Port Flower listens on; 0 takes a free one and prints it.",
    )
    flower_login: Annotated[SecretStr | None, _secret(_login)] = Field(
        None,
        validation_alias="UNWIND_FLOWER_LOGIN",
        description="user:password asked for by Flower. Unset: none, loopback only.",
    )
    flower_read_only: bool = Field(
        True,
        validation_alias="UNWIND_FLOWER_READ_ONLY",
        description="Whether Flower only looks. If not, whoever sees it may call any task as anybody.",
    )
    metrics_address: str = Field(
        "127.0.0.1",
        validation_alias="UNWIND_METRICS_ADDRESS",
        min_length=1,
        description="Address of /metrics, /livez and /readyz. They hold numbers without ids, and ask for no login.",
    )
    metrics_port: int = Field(
        0,
        validation_alias="UNWIND_METRICS_PORT",
        ge=0,
        le=65535,
        description="Port of /metrics, /livez and /readyz; 0 takes a free one and prints it.",
    )

    @property
    def mail_dir(self) -> Path:
        """Where `.eml` files go while there is no mail server."""
        return self.data_dir / "mail"

    @property
    def flower_dir(self) -> Path:
        """Where Flower keeps what it has seen."""
        return self.data_dir / "flower"

    @property
    def log_dir(self) -> Path:
        """Where the logs of the processes that `up` starts are collected."""
        return self.data_dir / "logs"

    def with_servers(self, urls: ServerUrls) -> Settings:
        """The same settings with the servers filled in that the environment left open."""
        given = {
            "database_url": SecretStr(urls.database_url),
            "broker_url": SecretStr(urls.broker_url),
            "result_backend": SecretStr(urls.result_backend),
        }
        if self.database_url is not None:
            del given["database_url"]
        if self.broker_url is not None:
            del given["broker_url"], given["result_backend"]
        elif self.result_backend is not None:
            del given["result_backend"]
        return self.model_copy(update=given)

    def environment(self) -> dict[str, str]:
        """These settings as variables, for programs we start. Unset ones are left out."""
        variables = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is not None:
                variables[str(field.validation_alias)] = (
                    value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                )
        return variables

    @property
    def has_servers(self) -> bool:
        """Whether the environment names both servers, so that no embedded ones are needed."""
        return self.database_url is not None and self.broker_url is not None


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process. Overrides go by field name. Raises SettingsError."""
    given: dict[str, Any] = {**_from_files(os.environ)}
    given |= {str(Settings.model_fields[name].validation_alias): value for name, value in overrides.items()}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    if settings.flower_address not in {"127.0.0.1", "::1", "localhost"} and settings.flower_login is None:
        raise SettingsError(
            "UNWIND_FLOWER_ADDRESS: Flower shows every order's traffic and is open to others at this address. "
            "Set UNWIND_FLOWER_LOGIN=user:password, or go back to 127.0.0.1."
        )
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


@contextlib.contextmanager
def settings_with_servers(settings: Settings | None = None) -> Iterator[Settings]:
    """Settings whose servers answer, for as long as the block runs: the given ones, else embedded ones (contract 1)."""
    settings = settings or load_settings()
    if settings.has_servers:
        yield settings
    else:
        with embedded_servers(settings.data_dir) as urls:
            yield settings.with_servers(urls)


def settings_with_permanent_servers(settings: Settings | None = None) -> Settings:
    """Settings whose servers answer until this process ends: for plain `celery -A workers.app ...` commands."""
    settings = settings or load_settings()
    return settings if settings.has_servers else settings.with_servers(embedded_servers_until_exit(settings.data_dir))


def _secrets() -> list[str]:
    """The variables whose value may be a secret, and so may stand in a file."""
    return [
        str(field.validation_alias) for field in Settings.model_fields.values() if "SecretStr" in str(field.annotation)
    ]


def _from_files(environ: Mapping[str, str]) -> dict[str, str]:
    """What `NAME_FILE` points at, as containers and systemd hand secrets over; NAME itself, if set, counts more."""
    found = {}
    for name in _secrets():
        path = environ.get(f"{name}_FILE")
        if not path or environ.get(name):
            continue
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "no text"
            raise SettingsError(f"{name}_FILE: cannot be read ({reason}); it names a file that holds {name}.") from None
    return found


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Variables named like ours that nobody reads: most likely typing errors."""
    known = {str(field.validation_alias) for field in Settings.model_fields.values()} | {
        "UNWIND_VENV",
        "UNWIND_SUPERVISED",
        "UNWIND_READY_FILE",
        "UNWIND_ALIVE_FILE",
    }
    known |= {f"{name}_FILE" for name in _secrets()}
    return sorted(
        name
        for name in (os.environ if environ is None else environ)
        if name.startswith("UNWIND_") and name not in known
    )


def _explain(error: ValidationError) -> str:
    """One line per variable: what does not fit and what the variable is for. Values may be secrets: never shown."""
    about = {str(field.validation_alias): field.description for field in Settings.model_fields.values()}
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        variable = str(problem["loc"][0])
        if variable not in about:  # a default that could not be made because another variable is wrong
            continue
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{variable}: {message[:1].lower()}{message[1:]}. {about.get(variable, '')}".rstrip())
    return "\n".join(lines)
