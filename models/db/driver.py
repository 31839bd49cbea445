"""psycopg's connection, adapted to a pooler in transaction mode: settings are sent with each BEGIN.

Behind such a pooler each transaction may have another server process, so nothing that a session sets lasts, and what
it sets would reach other programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Connection

_BEGIN = b"BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE"


class DriverConnection(psycopg.Connection[Any]):
    settings: Mapping[str, str] = {}
    """What is in force, with the role: in the session, or behind a pooler in each transaction."""
    is_pooled = False
    _begin_script = _set_config = b""

    def set_in_transactions(self, settings: Mapping[str, str]) -> None:
        """Begin each transaction with these settings besides the earlier ones.  They are constants of the program."""
        self.is_pooled, self.settings = True, {**self.settings, **settings}
        # SET takes no snapshot, so SET TRANSACTION may follow; a pipeline takes one statement per message.
        literals = {name: f"'{value}'" for name, value in self.settings.items()} | {
            "search_path": self.settings["search_path"]
        }
        local = [f"SET LOCAL {name} = {literal}" for name, literal in literals.items()]
        self._begin_script = "; ".join([_BEGIN.decode(), *local]).encode()
        calls = [f"pg_catalog.set_config('{name}', '{value}', true)" for name, value in self.settings.items()]
        self._set_config = f"SELECT {', '.join(calls)}".encode()

    def _start_query(self) -> PQGen[None]:
        """psycopg.Connection._start_query: send the settings with BEGIN."""
        if not self.is_pooled:
            yield from super()._start_query()
        elif self._autocommit or self.pgconn.transaction_status != TransactionStatus.IDLE:
            return
        elif self._pipeline:
            yield from self._exec_command(_BEGIN)
            yield from self._exec_command(self._set_config)
            yield from self._pipeline._sync_gen()
        else:
            self.pgconn.send_query(self._begin_script)
            for result in (yield from generators.execute(self.pgconn)):
                if result.status != ExecStatus.COMMAND_OK:
                    raise psycopg.errors.error_from_result(result, encoding=self.info.encoding)


def driver_of(conn: Connection) -> DriverConnection:
    driver: DriverConnection = conn.connection.driver_connection  # type: ignore[assignment]  # no engine has others
    return driver


def is_pooled(conn: Connection) -> bool:
    return driver_of(conn).is_pooled


def keeps_prepared_statements(conn: Connection) -> bool:
    return driver_of(conn).prepare_threshold is not None
