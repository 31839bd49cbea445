"""Do the settings mean what was meant, is there room on the disk, does the mail server greet, who can see Flower?"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from workers.embedded.data_dir import read_json
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, abbreviate, error, note, warning
from workers.monitoring.flower_guard import find_running_flower, is_loopback
from workers.settings import SettingsError, unknown_variables

LOOPBACK = ("127.0.0.1", "::1", "localhost")
GREETING_TIMEOUT = 3.0
"""Seconds.  A server that takes longer keeps letters waiting, too."""
LITTLE_ROOM, NO_ROOM = 2 * 10**9, 200 * 10**6
"""Bytes.  The write-ahead log alone may take two gigabytes (`max_wal_size`)."""


def report_invalid_settings(problem: SettingsError) -> list[Finding]:
    """Settings that keep everything from starting: one finding for each variable."""
    found = []
    for line in str(problem).splitlines():
        code = "FLOWER_EXPOSED" if line.startswith("UNWIND_FLOWER_ADDRESS: Flower shows") else "SETTING_WRONG"
        variable = line.partition(":")[0]
        found.append(error(code, line, f"set {variable} as .env.example shows, or unset it."))
    return found


def check_unknown_variables(environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Variables named like ours that nobody reads: what was meant by them does not happen."""
    return [
        warning("SETTING_UNREAD", f"{name} is set, but nobody reads it.", f"correct its name or unset {name}.")
        for name in unknown_variables(environ)
    ]


def check_libpq_variables() -> list[Finding]:
    """What `psql` reads and the program does not: whoever set them may expect otherwise, of PGSSLMODE most of all."""
    from models.db.postgres_address import libpq_variables

    names = [name for name in libpq_variables() if name not in ("PGDATA", "PGPASSWORD")]
    if not names:
        return []
    said = f"{abbreviate(names)} is set, but only DATABASE_URL says where the database is and how to log in."
    return [
        note(
            "PG_VARIABLES_UNREAD",
            said,
            "put what they mean into DATABASE_URL (?sslmode=..., ?host=...), or unset them.",
        )
    ]


def check_failed_start(data_dir: Path) -> list[Finding]:
    """Why the embedded servers did not start when they were last to; nothing that is not shipped is needed to get on."""
    folder = data_dir.resolve() / "servers"
    problem = str(read_json(folder / "failed.json").get("error", ""))
    if not problem:
        return []
    name = "valkey" if problem.lower().startswith("valkey") else "postgres"
    reason = " ".join(line.strip() for line in problem.splitlines()[-3:])
    said = f"The embedded {name} cannot start: {reason}"
    aside = f"mv {folder / name} {folder / name}.damaged"
    if name == "valkey":
        fix = f"{aside}, then ./run up: what was promised is in PostgreSQL and is done; senders without an answer send again."
    else:
        fix = f"see {folder / 'postgres.log'}; where its data is damaged: {aside}, then ./run restore FILE, then ./run up."
    return [error("EMBEDDED_SERVER_CANNOT_START", said, fix)]


def check_flower(place: Context) -> list[Finding]:
    """With a login it may be seen from outside, but a login is no encryption, and no authorisation (reliability X10)."""
    found = []
    effective = find_running_flower(place.settings)
    address = effective.get("address", place.settings.flower_address)
    if not effective.get("read_only", place.settings.flower_read_only):
        said = "Flower is not read-only: whoever sees it can call any task as anybody."
        found.append(error("FLOWER_COMMANDS", said, "unset UNWIND_FLOWER_READ_ONLY, and start Flower anew."))
    if not address or is_loopback(address):
        return found
    return [
        *found,
        note(
            "FLOWER_OPEN",
            f"Flower listens on {address}: whoever reaches it is asked for the login, in clear text.",
            "put a proxy with TLS before it, or start it with UNWIND_FLOWER_ADDRESS=127.0.0.1 and no --address.",
        ),
    ]


def check_disk(place: Context) -> list[Finding]:
    """Embedded servers, logs and mail files share the data folder's disk."""
    free = place.free(place.settings.data_dir)
    if free >= LITTLE_ROOM:
        return []
    said = f"Only {free / 10**6:.0f} MB are free where data, logs and mails are kept; a full disk stops the servers."
    kind = error if free < NO_ROOM else warning
    return [kind("DISK_LOW", said, "make room, or move the folder and set UNWIND_DATA.")]


def check_mail_server(place: Context) -> list[Finding]:
    """Greeting, and encryption where it is asked for; no letter is sent and no password shown."""
    if place.settings.smtp_url is None:
        if not place.external_servers:
            return []
        said = "No mail server is named: letters are files in the folder mail below UNWIND_DATA."
        return [note("MAIL_TO_FILES", said, "set UNWIND_SMTP_URL if members are to get them.")]
    url = urlsplit(place.settings.smtp_url.get_secret_value())
    where = f"The mail server {url.hostname}{f':{url.port}' if url.port else ''}"
    try:
        if url.scheme == "smtps":
            context = ssl.create_default_context()
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                url.hostname or "", url.port or 0, timeout=GREETING_TIMEOUT, context=context
            )
        else:
            server = smtplib.SMTP(url.hostname or "", url.port or 0, timeout=GREETING_TIMEOUT)
        with server:
            server.ehlo_or_helo_if_needed()
            encrypts = server.has_extn("starttls")
    except (OSError, smtplib.SMTPException) as problem:
        reason = (
            getattr(problem, "strerror", None) or type(problem).__name__
        )  # never what it said: it may repeat secrets
        said = f"{where} does not greet ({reason}): letters wait and are tried again."
        return [error("MAIL_SERVER_SILENT", said, "start it, or correct UNWIND_SMTP_URL.")]
    if parse_qs(url.query).get("starttls", ["0"])[-1] in ("1", "true", "yes") and not encrypts:
        said = f"{where} offers no STARTTLS, which UNWIND_SMTP_URL asks for: no letter will be handed over."
        return [error("MAIL_SERVER_NO_TLS", said, "switch it on there, or take starttls=1 out of UNWIND_SMTP_URL.")]
    if url.username and not encrypts and url.scheme == "smtp" and url.hostname not in LOOPBACK:
        said = f"{where} gets the password in clear text."
        return [warning("MAIL_PASSWORD_IN_CLEAR", said, "use smtps:// or add ?starttls=1 to UNWIND_SMTP_URL.")]
    return []
