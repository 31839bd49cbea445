"""Tests of loading, validating and documenting settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import make_url

from workers.embedded.client import ServerUrls
from workers.settings import CHECKOUT, Settings, SettingsError, load_settings, unknown_variables

EXAMPLE = (CHECKOUT / ".env.example").read_text()
VARIABLES = {str(field.validation_alias): name for name, field in Settings.model_fields.items()}
NOT_SETTINGS = {  # read by ./run and by docker compose
    "UNWIND_VENV",
    "POSTGRES_PORT",
    "REDIS_PORT",
    "FLOWER_PORT",
    "METRICS_PORT",
    "WEB_PORT",
    "PROMETHEUS_PORT",
    "GRAFANA_PORT",
    "MAILPIT_PORT",
}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_env_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example value is one that the program accepts."""
    for variable, value in re.findall(r"^#([A-Z][A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE):
        if variable in VARIABLES:
            is_file = variable.startswith("UNWIND_TLS_")  # of the operator's machine
            monkeypatch.setenv(variable, __file__ if is_file else value)
    settings = load_settings()
    assert settings.has_servers
    assert settings.concurrency == 2


def test_empty_environment_is_valid() -> None:
    """The first command after a clone needs no settings."""
    settings = load_settings()
    assert not settings.has_servers
    assert settings.data_dir == CHECKOUT / ".unwind"
    assert settings.flower_address == "127.0.0.1"
    assert settings.smtp_url is None


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and shells pass empty strings for unset variables."""
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("UNWIND_CONCURRENCY", "")
    assert load_settings().database_url is None
    assert load_settings().concurrency == 2


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_usual_database_urls_are_accepted(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """SQLAlchemy would load another driver, or none, for some of them."""
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:p%40ss@db:5432/unwind?sslmode=require")
    database = load_settings().database_url
    assert database is not None
    assert database.get_secret_value() == "postgresql+psycopg://u:p%40ss@db:5432/unwind?sslmode=require"


@pytest.mark.parametrize(
    ("broker", "backend"),
    [
        ("redis://:pw@host:6379/0", "redis://:pw@host:6379/1"),
        ("redis://host", "redis://host/1"),
        ("rediss://:pw@host:6379/4?ssl_cert_reqs=required", "rediss://:pw@host:6379/5?ssl_cert_reqs=required"),
        ("valkey://host/2", "redis://host/3"),
    ],
)
def test_result_backend_defaults_to_the_brokers_next_database(
    monkeypatch: pytest.MonkeyPatch, broker: str, backend: str
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", broker)
    setting = load_settings().result_backend
    assert setting is not None
    assert setting.get_secret_value() == backend


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("DATABASE_URL", "mysql://root:hunter2@db/unwind", "must begin with postgresql://"),
        ("DATABASE_URL", "postgresql://u:hunter2@db", "must name a database"),
        ("CELERY_BROKER_URL", "amqp://u:hunter2@mq/", "must begin with redis://"),
        ("CELERY_BROKER_URL", "redis://:hunter2@mq/queue", "must end with a database number"),
        ("CELERY_RESULT_BACKEND", "db+sqlite:///hunter2", "must begin with redis://"),
        ("UNWIND_APP_DATABASE_URL", "hunter2", "must begin with postgresql://"),
        ("UNWIND_DIRECT_DATABASE_URL", "postgresql://u:hunter2@db/unwind", "Set DATABASE_URL too"),
        ("UNWIND_SMTP_URL", "mail.example.com:hunter2", "must look like smtp://"),
        ("UNWIND_MAIL_FROM", "hunter2", "must be one email address"),
        ("UNWIND_MAIL_FROM", "a@b.c\nBcc: hunter2@b.c", "must be one email address"),
        ("UNWIND_MARKETPLACE_URL", "javascript:hunter2", "must begin with https://"),
        ("UNWIND_SITE_NAME", "a\nhunter2", "pattern"),
        ("UNWIND_CONCURRENCY", "hunter2", "valid integer"),
        ("UNWIND_CONCURRENCY", "0", "greater than or equal to 1"),
        ("UNWIND_LOG_LEVEL", "hunter2", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("UNWIND_LOG_FORMAT", "hunter2", "'console' or 'json'"),
        ("UNWIND_FLOWER_PORT", "66000", "less than or equal to 65535"),
        ("UNWIND_FLOWER_LOGIN", "hunter2", "must be user:password"),
        ("UNWIND_FLOWER_ADDRESS", "0.0.0.0", "UNWIND_FLOWER_LOGIN"),
    ],
)
def test_invalid_value_is_reported_with_its_fix_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fix: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{variable}: ")
    assert fix in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_all_invalid_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://mq")
    monkeypatch.setenv("UNWIND_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "CELERY_BROKER_URL",
        "UNWIND_LOG_FORMAT",
    ]


def test_secrets_print_as_stars(monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: values with passwords stay out of logs and tracebacks."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@db/unwind")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:hunter2@mq/0")
    monkeypatch.setenv("UNWIND_SMTP_URL", "smtp://u:hunter2@mail")
    monkeypatch.setenv("UNWIND_FLOWER_LOGIN", "u:hunter2")
    assert "hunter2" not in repr(load_settings())
    assert "hunter2" in load_settings().environment()["CELERY_RESULT_BACKEND"]


def test_settings_reach_child_processes_unchanged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Embedded servers included."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    monkeypatch.setenv("UNWIND_CONCURRENCY", "3")
    urls = ServerUrls(
        "postgresql+psycopg://o:p@127.0.0.1:1/unwind", "redis://:p@127.0.0.1:2/0", "redis://:p@127.0.0.1:2/1", ""
    )
    settings = load_settings().with_servers(urls)
    for variable, value in settings.environment().items():
        monkeypatch.setenv(variable, value)
    assert load_settings() == settings


def test_configured_servers_override_embedded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@db/unwind")
    urls = ServerUrls("postgresql+psycopg://embedded/unwind", "redis://embedded/0", "redis://embedded/1", "")
    mixed = load_settings().with_servers(urls).environment()
    assert mixed["DATABASE_URL"] == "postgresql+psycopg://u@db/unwind"
    assert mixed["CELERY_BROKER_URL"] == "redis://embedded/0"
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://given/7")
    with load_settings().with_servers_running() as settings:  # starts no servers: both are configured
        assert settings.environment()["CELERY_RESULT_BACKEND"] == "redis://given/8"


def test_direct_url_is_for_migrations_and_the_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner@pooler/unwind")
    monkeypatch.setenv("UNWIND_APP_DATABASE_URL", "postgresql://app@pooler/unwind")
    urls = load_settings().migration_url, load_settings().listener_url
    assert [url and make_url(url.get_secret_value()).username for url in urls] == ["owner", "app"]
    monkeypatch.setenv("UNWIND_DIRECT_DATABASE_URL", "postgresql://owner@db/unwind")
    urls = load_settings().migration_url, load_settings().listener_url
    assert [url and make_url(url.get_secret_value()).host for url in urls] == ["db", "db"]


def test_relative_data_directory_is_resolved_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Programs that we start may have another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNWIND_DATA", "somewhere")
    assert load_settings().data_dir == tmp_path / "somewhere"


def test_misspelt_variables_are_reported() -> None:
    assert unknown_variables({"UNWIND_LOGLEVEL": "DEBUG", "UNWIND_LOG_LEVEL": "DEBUG", "HOME": "/"}) == [
        "UNWIND_LOGLEVEL"
    ]


def test_secret_can_be_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers and systemd pass them, with a trailing newline; other settings can't."""
    secret = tmp_path / "database_url"
    secret.write_text("postgresql://me:hunter2@host/unwind\n")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    monkeypatch.setenv("UNWIND_LOG_LEVEL_FILE", str(secret))
    setting = load_settings().database_url
    assert setting is not None
    assert setting.get_secret_value() == "postgresql+psycopg://me:hunter2@host/unwind"
    assert unknown_variables() == ["UNWIND_LOG_LEVEL_FILE"]
    monkeypatch.setenv("DATABASE_URL", "postgresql://host/other")
    assert str(load_settings().environment()["DATABASE_URL"]).endswith("host/other")
    monkeypatch.delenv("DATABASE_URL")
    secret.unlink()
    with pytest.raises(SettingsError, match=r"^DATABASE_URL_FILE: cannot be read \(No such file"):
        load_settings()
