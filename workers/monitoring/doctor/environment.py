"""Checks of settings, embedded servers, free disk space, mail and Flower."""

from __future__ import annotations

import shutil
import smtplib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from models.db.postgres_address import libpq_variables
from workers.embedded.binaries import ServerBinaryNotFound
from workers.embedded.client import embedded_servers, running_servers
from workers.embedded.data_dir import FAILURE_FILE, read_json, servers_dir
from workers.embedded.servers import ServerStartError
from workers.mail.smtp import open_smtp, requires_starttls
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, error, finding_names, note, warning
from workers.monitoring.flower_guard import find_running_flower, is_flower_loopback_only
from workers.settings import LOOPBACK_HOSTS, SettingsError, unknown_variables


def describe_invalid_settings(problem: SettingsError) -> Iterator[Finding]:
    for line in str(problem).splitlines():
        variable = line.partition(":")[0]
        exposed = variable == "UNWIND_FLOWER_ADDRESS" and "UNWIND_FLOWER_LOGIN" in line
        code = "FLOWER_EXPOSED" if exposed else "SETTING_WRONG"
        yield error(code, line, f"set {variable} as .env.example shows, or unset it.")


def find_unknown_variables() -> Iterator[Finding]:
    for name in unknown_variables():
        message = f"{name} is set, but is not a setting of Unwind."
        yield warning("SETTING_UNREAD", message, f"correct its name or unset {name}.")


def find_libpq_variables() -> Iterator[Finding]:
    if names := [name for name in libpq_variables() if name not in ("PGDATA", "PGPASSWORD")]:
        are = "is" if len(names) == 1 else "are"
        message = f"{finding_names(names)} {are} set, but Unwind uses only DATABASE_URL."
        fix = "put their values into DATABASE_URL (?sslmode=..., ?host=...), or unset them."
        yield note("PG_VARIABLES_UNREAD", message, fix)


def join_embedded_servers(context: Context) -> Iterator[Finding]:
    settings = context.settings
    if settings.has_servers:
        return
    if running_servers(settings.data_dir) is None:
        folder = servers_dir(settings.data_dir)
        if problem := str(read_json(folder / FAILURE_FILE).get("error", "")):
            yield _failed_start(folder, problem)
        message = "The embedded servers are not running, so their contents were not checked."
        yield note("SERVERS_NOT_RUNNING", message, "run ./run up.")
        return
    try:
        context.settings = settings.with_servers(context.connections.enter_context(embedded_servers(settings.data_dir)))
    except (OSError, ServerBinaryNotFound, ServerStartError) as problem:
        message = f"The embedded servers cannot be reached: {problem}"
        yield error("SERVERS_UNREACHABLE", message, "run ./run down, then ./run up.")


def _failed_start(folder: Path, problem: str) -> Finding:
    name = "valkey" if problem.lower().startswith("valkey") else "postgres"
    reason = " ".join(line.strip() for line in problem.splitlines()[-3:])
    move_aside = f"mv {folder / name} {folder / name}.damaged"
    if name == "valkey":
        fix = (
            f"{move_aside}, then ./run up: the outbox is in PostgreSQL and is published again; "
            "senders without an answer must send their commands again."
        )
    else:
        log = folder / "postgres.log"
        fix = f"see {log}; if its data is damaged: {move_aside}, then ./run restore FILE, then ./run up."
    return error("EMBEDDED_SERVER_CANNOT_START", f"The embedded {name} cannot start: {reason}", fix)


def check_disk(context: Context) -> Iterator[Finding]:
    folder = context.settings.data_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < 2 * 10**9:  # the write-ahead log alone may take as much (`max_wal_size`)
        message = f"Only {free / 10**6:.0f} MB are free for data, logs and emails; a full disk stops the servers."
        kind = error if free < 200 * 10**6 else warning
        yield kind("DISK_LOW", message, "free some space, or move the folder and set UNWIND_DATA.")


def check_mail_server(context: Context) -> Iterator[Finding]:
    if context.settings.smtp_url is None:
        if context.external_servers:
            message = "No mail server is set: emails are written to the folder mail below UNWIND_DATA."
            yield note("MAIL_TO_FILES", message, "set UNWIND_SMTP_URL to send them to members.")
        return
    url = urlsplit(context.settings.smtp_url.get_secret_value())
    server_name = f"The mail server {url.hostname}{f':{url.port}' if url.port else ''}"
    try:
        with open_smtp(url, timeout=3.0) as server:
            server.ehlo_or_helo_if_needed()
            has_starttls = server.has_extn("starttls")
    except (OSError, smtplib.SMTPException) as problem:
        # Not the server's text, which may repeat secrets.
        reason = getattr(problem, "strerror", None) or type(problem).__name__
        message = f"{server_name} does not answer ({reason}): emails wait and are retried."
        yield error("MAIL_SERVER_SILENT", message, "start it or correct UNWIND_SMTP_URL.")
        return
    if requires_starttls(url) and not has_starttls:
        message = f"{server_name} offers no STARTTLS, which UNWIND_SMTP_URL requires: no email will be sent."
        fix = "enable STARTTLS on the server, or remove starttls=1 from UNWIND_SMTP_URL."
        yield error("MAIL_SERVER_NO_TLS", message, fix)
    elif url.username and not has_starttls and url.scheme == "smtp" and url.hostname not in LOOPBACK_HOSTS:
        message = f"{server_name} receives the password in clear text."
        yield warning("MAIL_PASSWORD_IN_CLEAR", message, "use smtps://, or add ?starttls=1 to UNWIND_SMTP_URL.")


def check_flower(context: Context) -> Iterator[Finding]:
    effective = find_running_flower(context.settings)
    address = effective.get("address", context.settings.flower_address)
    if not effective.get("read_only", context.settings.flower_read_only):
        message = "Flower is not read-only: everyone who can open it can run any task as any member."
        yield error("FLOWER_COMMANDS", message, "unset UNWIND_FLOWER_READ_ONLY and restart Flower.")
    if address and not is_flower_loopback_only(address):
        message = f"Flower listens on {address}, where its login is sent in clear text."
        fix = "put a TLS proxy in front of it, or start it with UNWIND_FLOWER_ADDRESS=127.0.0.1 and no --address."
        yield note("FLOWER_OPEN", message, fix)
