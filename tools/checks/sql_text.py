"""Check the text of SQL: values are bound parameters, written `:name`; few texts are long or go to the driver."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from workers.settings import CHECKOUT

LAYERS = ("workers", "web", "schedules", "tasks", "models")
TAKES_SQL = {"text", "execute", "exec_driver_sql", "executemany", "run", "send"}
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
BEGINS_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|COPY|ALTER|CREATE|DROP|GRANT|DO)\b")

DRIVER_PLACEHOLDER = re.compile(r"%\((?!table_name|column_0|constraint_name)\w+\)s")

REVIEWED = {
    "models/feed.py:advance_feed_base": "converted to an integer in that line; ALTER SEQUENCE takes no parameters",
    **dict.fromkeys(
        (
            "models/ddl/grants.py:_create_role",
            "models/ddl/grants.py:_transfer_ownership",
        ),
        "names of roles, rights and functions that are constants of the package; DO and GRANT take no parameters",
    ),
    "models/db/bulk.py:_insert_statement": (
        "names of a mapped table, and a RETURNING clause that its callers write as a constant"
    ),
    "models/db/bulk.py:_update_statement": "names of a mapped table",
}
"""Functions (`file:function`) whose statements contain more than constants, each with the reason why no value can
get in."""


MAX_DRIVER_TEXTS = 12
"""Statements written as text that bypass SQLAlchemy; those written with Core don't count."""
MAX_LONG_TEXTS = 40
LONG_TEXT_LINES = 4
"""Longer statements are files in models/sql/."""


def sql_text_problems(root: Path = CHECKOUT) -> list[str]:
    """Statements with inserted values outside REVIEWED, outdated entries of REVIEWED, S608 without a reason, parameters
    in psycopg's style, and too many texts for the driver."""
    insertions: dict[str, list[str]] = {}
    texts: list[str] = []
    long_texts: list[str] = []
    problems: list[str] = []
    for path in _product_files(root):
        name, source = str(path.relative_to(root)), path.read_text(encoding="utf-8")
        module = ast.parse(source)
        texts += [f"{name}:{text}" for text in driver_texts(module)]
        long_texts += [f"{name}:{line}" for line in long_sql_texts(module)]
        for function, values in inserted_values(module).items():
            insertions[f"{name}:{function}"] = values
        problems += [
            f"{name}:{number}: write parameters as `:name`"
            for number, line in enumerate(source.splitlines(), start=1)
            if DRIVER_PLACEHOLDER.search(line)
        ]
        problems += [
            f"{name}:{number}: `noqa: S608` without a reason"
            for number, line in enumerate(source.splitlines(), start=1)
            if "noqa: S608" in line and " - " not in line.partition("noqa: S608")[2]
        ]
    problems += [
        f"{place} puts {', '.join(values)} into the text of a statement: bind it, or add the function to REVIEWED"
        for place, values in insertions.items()
        if place not in REVIEWED
    ]
    if root == CHECKOUT:
        problems += [f"{place} is in REVIEWED and builds no statement" for place in REVIEWED.keys() - insertions.keys()]
    if len(texts) > MAX_DRIVER_TEXTS:
        problems.append(f"{len(texts)} texts go to the driver, at most {MAX_DRIVER_TEXTS} may: {', '.join(texts)}")
    if len(long_texts) > MAX_LONG_TEXTS:
        problems.append(
            f"{len(long_texts)} long texts of SQL, at most {MAX_LONG_TEXTS} may be: {', '.join(long_texts)}"
        )
    return sorted(problems)


def long_sql_texts(module: ast.Module) -> list[int]:
    """The lines of texts that begin like a statement and have at least `LONG_TEXT_LINES` lines."""
    built = [node for node in ast.walk(module) if isinstance(node, ast.JoinedStr)]
    parts = {part for node in built for part in node.values}
    texts = [node for node in ast.walk(module) if isinstance(node, ast.Constant) and node not in parts]
    return sorted(
        node.lineno
        for node in (*built, *texts)
        if BEGINS_SQL.match(text := _text_of(node)) and len(text.strip().splitlines()) >= LONG_TEXT_LINES
    )


def _text_of(node: ast.expr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else "…" for part in parts
    )


def driver_texts(module: ast.Module) -> list[str]:
    """The constants, and functions that return statements, whose texts go to the driver by `models.db.pipeline`."""
    texts = {
        node.targets[0].id
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _is_call(node.value, "text")
    } | {
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(part, ast.Return) and _is_call(part.value, "text") for part in node.body)
    }
    sent = [
        name.id
        for call in ast.walk(module)
        if _is_call(call, "execute") or _is_call(call, "driver_sql")
        for argument in call.args
        for name in ast.walk(argument)
        if isinstance(name, ast.Name)
    ]
    return sorted(texts.intersection(sent))


def _is_call(node: ast.AST | None, function: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function


def _product_files(root: Path) -> Iterator[Path]:
    for layer in LAYERS:
        yield from (path for path in sorted((root / layer).rglob("*.py")) if "versions" not in path.parts)


def inserted_values(module: ast.Module) -> dict[str, list[str]]:
    """By function: the expressions in statements that are no constants of a module."""
    insertions: dict[str, list[str]] = {}
    for function, expressions in built_statements(module):
        values = [text for text in expressions if not CONSTANT.fullmatch(text.rpartition(".")[2])]
        if values:
            insertions.setdefault(function, []).extend(values)
    return insertions


def built_statements(module: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """(function, inserted expressions) of each built text that is passed to something that takes SQL, directly or by a
    name, and of each that is returned and begins like a statement."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in (*functions, module):
        name = "" if isinstance(scope, ast.Module) else scope.name
        nodes = [node for part in scope.body for node in _own_nodes(part)]
        assigned = {
            target.id: node.value
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            for argument in call.args[:2] if function in TAKES_SQL else ():
                text = assigned.get(argument.id, argument) if isinstance(argument, ast.Name) else argument
                if (expressions := _insertions(text)) is not None:
                    yield name, expressions
        for value in [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]:
            text = assigned.get(value.id, value) if isinstance(value, ast.Name) else value
            if (expressions := _insertions(text)) is not None and BEGINS_SQL.match(_leading_constant(text)):
                yield name, expressions


def _insertions(node: ast.expr) -> list[str] | None:
    """The expressions that an f-string, a concatenation, `%` or `format` inserts; None for any other expression."""
    if isinstance(node, ast.JoinedStr):
        return [ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        sides = [side for side in (node.left, node.right) if not isinstance(side, ast.Constant)]
        return [text for side in sides for text in (_insertions(side) or [ast.unparse(side)])]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        arguments = (*node.args, *(keyword.value for keyword in node.keywords))
        return [ast.unparse(argument) for argument in arguments if not isinstance(argument, ast.Constant)]
    return None


def _leading_constant(text: ast.expr) -> str:
    match text:
        case ast.Constant(value=str(constant)):
            return constant
        case ast.BinOp(left=ast.expr() as inner) | ast.JoinedStr(values=[ast.expr() as inner, *_]):
            return _leading_constant(inner)
        case ast.Call(func=ast.Attribute(value=ast.expr() as inner)):
            return _leading_constant(inner)
    return ""


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and its descendants, without the bodies of nested functions."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _own_nodes(child)
