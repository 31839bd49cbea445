"""The SQL interface: functions `unwind.submit_command`, which check and insert commands, and `command_answers`."""

from __future__ import annotations

from models.sql import read_sql

SUBMIT_COMMAND_SIGNATURE = "unwind.submit_command(text, text, text)"
SUBMIT_JSONB_SIGNATURE = "unwind.submit_command(text, jsonb, text)"

DDL: tuple[str, ...] = (
    read_sql("submit_command"),
    read_sql("submit_command_jsonb"),
    f"REVOKE ALL ON FUNCTION {SUBMIT_COMMAND_SIGNATURE}, {SUBMIT_JSONB_SIGNATURE} FROM PUBLIC",
    read_sql("command_answers"),
)
