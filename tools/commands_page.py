"""Generator of `docs/commands.md`, from the declarations of the commands."""

from __future__ import annotations

from tasks.declarations import COMMANDS
from tools.contract_files import argument_schema, public_tasks
from workers.settings import CHECKOUT

COMMANDS_PAGE = CHECKOUT / "docs" / "commands.md"
PAGE = """\
# Commands

`./run docs` generates this page from the declarations in `tasks/`, and `./run check` compares it. Every command is a
Celery message to queue `commands`, a call of `unwind.submit_command`, or `./run send`; [integrate](integrate.md) shows
each. [`contract/`](../contract) has the JSON Schema of the arguments and an example message of every command.

`request_id` is optional everywhere. An actor is one of `member_id` and `staff`; `occurred_at` is accepted with it. An
argument with a question mark is optional.

| command | what it does | arguments |
| --- | --- | --- |
{rows}
"""
LEFT_OUT = ("request_id", "occurred_at", "staff")


def commands_page() -> str:
    return PAGE.format(rows="\n".join(_row(task) for task in public_tasks()))


def _row(task: str) -> str:
    schema = argument_schema(task)
    required = schema.get("required", [])
    has_actor = "oneOf" in schema
    arguments = [
        "actor" if has_actor and name == "member_id" else f"`{name}`" if name in required else f"`{name}`?"
        for name in schema["properties"]
        if name not in LEFT_OUT or (name == "staff" and not has_actor)
    ]
    return f"| `{task}` | {COMMANDS[task].about} | {', '.join(arguments)} |"
