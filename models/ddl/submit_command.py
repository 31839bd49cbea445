"""The SQL interface: functions `unwind.submit_command`, which check and insert commands, and `command_answers`."""

from __future__ import annotations

from models.sql import read_sql

SUBMIT_COMMAND_SIGNATURE = "unwind.submit_command(text, text, text)"
SUBMIT_JSONB_SIGNATURE = "unwind.submit_command(text, jsonb, text)"
SUBMIT_DEFINER = "unwind_submit_definer"
"""Owns `submit_command` and has only the rights that the function needs."""


SUBMIT_DEFINER_GRANTS = (
    "SELECT ON unwind.commands",
    "SELECT, INSERT ON unwind.submissions",
    "SELECT (removal_id, order_id) ON unwind.removals",
    "SELECT (draft_id, order_id) ON unwind.drafts",
)


DDL: tuple[str, ...] = (
    read_sql("submit_command"),
    read_sql("submit_command_jsonb"),
    f"REVOKE ALL ON FUNCTION {SUBMIT_COMMAND_SIGNATURE}, {SUBMIT_JSONB_SIGNATURE} FROM PUBLIC",
    read_sql("command_answers"),
)
