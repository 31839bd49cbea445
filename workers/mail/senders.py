"""The choice of how emails are sent: over SMTP (`smtp.py`), or by a mailer that writes `.eml` files into a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.mailer import Mailer, OutgoingEmail, ServerUnavailable
from workers.embedded.data_dir import write_file
from workers.mail.mime_message import MailBranding, build_mime_message
from workers.mail.smtp import SmtpMailer, describe_smtp_error
from workers.settings import Settings


@dataclass
class FolderMailer:
    directory: Path
    branding: MailBranding

    def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
        results: list[Exception | None] = []
        for email in emails:
            try:
                self._write_eml_file(email)
                results.append(None)
            except OSError as error:
                reason = f"the mail directory cannot be written: {describe_smtp_error(error)}"
                left = ServerUnavailable(reason, tried=False)
                return [*results, ServerUnavailable(reason), *[left] * (len(emails) - len(results) - 1)]
            except Exception as error:  # noqa: BLE001 - an email that cannot be built must not stop the others
                results.append(error)
        return results

    def _write_eml_file(self, email: OutgoingEmail) -> None:
        message = build_mime_message(email, self.branding)
        event = re.sub(r"[^a-z_]", "", email.event)
        name = f"{email.written_at:%Y%m%dT%H%M%SZ}-{event}-{email.message_id[:12]}.eml"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Readable for the owner only: emails quote what members wrote to each other.
        write_file(self.directory / name, message)


def mailer_from_settings(settings: Settings) -> Mailer:
    branding = MailBranding(settings.mail_from, settings.site_name, settings.marketplace_url)
    if settings.smtp_url is None:
        return FolderMailer(settings.mail_dir, branding)
    return SmtpMailer(settings.smtp_url.get_secret_value(), branding)
