"""Checks that a revision can be applied while workers of the previous version run.

A schema change comes as two revisions: one that only adds (`phase = "expand"`), with which old and new workers both
run, and one in a later release that removes what is unused (`phase = "contract"`).  The checks read the source of the
revision.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

EXPAND, CONTRACT = "expand", "contract"

_DROPS = {"drop_column", "drop_table", "drop_index", "drop_constraint"}
_UNSAFE = {
    "rename_table": "the previous version knows only the old name: add a table, copy, drop the old one later",
}


def find_problems(source: str) -> list[str]:
    tree = ast.parse(source)
    phase = _phase(tree)
    if phase not in (EXPAND, CONTRACT):
        return [f'it declares no phase: write phase = "{EXPAND}" (only adds) or phase = "{CONTRACT}" (only removes)']
    return [sentence for call in _operations(tree) for sentence in _problems_of(call, phase)]


def _phase(tree: ast.Module) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "phase":
            return (
                node.value.value if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else None
            )
    return None


def _operations(tree: ast.Module) -> Iterator[ast.Call]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade":
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and _is_op(call.func.value):
                    yield call


def _is_op(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "op"


def _problems_of(call: ast.Call, phase: str) -> Iterator[str]:
    assert isinstance(call.func, ast.Attribute)
    name, arguments = call.func.attr, {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    location = f"line {call.lineno}, {name}"
    if name in _UNSAFE:
        yield f"{location}: {_UNSAFE[name]}"
    if name in _DROPS and phase == EXPAND:
        yield f"{location}: the previous version may still use it; drop it in the contract phase of a later release"
    if name == "alter_column" and "new_column_name" in arguments:
        yield f"{location}: the previous version knows only the old name: add a column, copy, drop the old one later"
    if name == "alter_column" and "type_" in arguments:
        yield f"{location}: another type rewrites the table under a lock: add a column, copy, drop the old one later"
    if name == "alter_column" and _is(arguments.get("nullable"), value=False) and phase == EXPAND:
        yield f"{location}: the previous version may still write NULL; require a value in a contract a release later"
    if name == "add_column" and _requires_value(call):
        yield f"{location}: the previous version does not write it: allow NULL, or add a server_default"
    if name == "create_index" and not _is(arguments.get("if_not_exists"), value=True):
        yield (
            f"{location}: on a large table it blocks writers: write if_not_exists=True, so that operators can create "
            "it beforehand with CREATE INDEX CONCURRENTLY"
        )
    if name == "create_check_constraint" and not _is(arguments.get("postgresql_not_valid"), value=True):
        yield f"{location}: it reads the whole table under a lock: write postgresql_not_valid=True, validate later"


def _requires_value(call: ast.Call) -> bool:
    columns = [arg for arg in call.args if isinstance(arg, ast.Call)]
    arguments = {keyword.arg: keyword.value for column in columns for keyword in column.keywords if keyword.arg}
    return _is(arguments.get("nullable"), value=False) and "server_default" not in arguments


def _is(node: ast.expr | None, *, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
