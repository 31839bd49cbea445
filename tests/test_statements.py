"""Checks that values reach SQL only as bound parameters: statements are built from constants alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
LAYERS = ("workers", "schedules", "tasks", "models")
TAKES_SQL = {"text", "execute", "exec_driver_sql", "executemany", "run", "send"}
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*")
BEGINS_SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|COPY|ALTER|CREATE|DROP|GRANT)\b")

REVIEWED = {
    "models/alerts.py:_unlock": "called twice at import, with words of that module",
    "models/alerts.py:_any_due": "one of two conditions of that module",
    "models/alerts.py:_next": "one of two conditions of that module",
    "models/feed.py:advance_feed_base": "a number, and made one again right there; ALTER SEQUENCE takes no parameters",
    "models/integrity/invariants/invariant.py:broken": "a constant of the package, narrowed by conditions that are constants too",
    "models/inventory.py:load_stock_view": "a lock or none",
    "models/integrity/invariants/alert_lifecycle.py:held": "called at import by the invariants, with the name of a column",
    "models/integrity/invariants/alert_lifecycle.py:first_answer": "called at import by the invariants, with names of columns",
    "models/integrity/invariants/timelines.py:_folded": "called at import, with words of that module",
    "models/integrity/invariants/timelines.py:_numbered": "called at import, with words of that module",
    "models/monitoring/metrics.py:_age": "called at import, with words of that module",
    "models/submissions.py:_first_due": "called twice at import, with words of that module",
    "models/db/bulk.py:_insert": "names of a table of ours, and what its callers write as a constant to have it given back",
    "models/db/bulk.py:_update": "names of a table of ours",
    "models/db/locks.py:lock_items": "a query that its callers write as a constant",
    "models/members.py:send_facts": "one of three kinds of lock that are constants of that module",
    "workers/local/backup.py:_count": "the name of a table of ours; an identifier cannot be a parameter",
}
"""Places where a text is made up of more than constants of a module, `file:function`, each with why no value can get
in."""


def made_up(node: ast.expr) -> list[str] | None:
    """What is put into a text by an expression, as written; None for an expression that is no such text."""
    if isinstance(node, ast.JoinedStr):
        return [ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        sides = [side for side in (node.left, node.right) if not isinstance(side, ast.Constant)]
        return [piece for side in sides for piece in (made_up(side) or [ast.unparse(side)])]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format":
        given = (*node.args, *(word.value for word in node.keywords))
        return [ast.unparse(one) for one in given if not isinstance(one, ast.Constant)]
    return None


def statements(module: ast.Module) -> Iterator[tuple[str, int, list[str]]]:
    """(function, line, what is put in) of each text that is handed to something that takes SQL, directly or by a name,
    and of
    each that a function gives back and that begins as a statement does: somebody will send it.
    """
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in (*functions, module):
        name = "" if isinstance(scope, ast.Module) else scope.name
        nodes = [node for part in scope.body for node in _inside(part)]
        texts = {
            target.id: node.value
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if called in TAKES_SQL:
                for given in call.args[:2]:
                    said = texts.get(given.id, given) if isinstance(given, ast.Name) else given
                    if (pieces := made_up(said)) is not None:
                        yield name, call.lineno, pieces
        given_back = [node.value for node in nodes if isinstance(node, ast.Return) and node.value is not None]
        for value in given_back:
            said = texts.get(value.id, value) if isinstance(value, ast.Name) else value
            if (pieces := made_up(said)) is not None and BEGINS_SQL.match(_beginning(said)):
                yield name, value.lineno, pieces


def _beginning(text: ast.expr) -> str:
    """What a text begins with, if that is a constant."""
    match text:
        case ast.Constant(value=str(beginning)):
            return beginning
        case ast.BinOp(left=ast.expr() as inner) | ast.JoinedStr(values=[ast.expr() as inner, *_]):
            return _beginning(inner)
        case ast.Call(func=ast.Attribute(value=ast.expr() as inner)):
            return _beginning(inner)
    return ""


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but not what belongs to a function of its own."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _inside(child)


def strange(path: Path) -> dict[str, list[str]]:
    """`file:function` of the texts in a file into which something goes that is no constant of a module."""
    file = str(path.relative_to(CHECKOUT))
    found: dict[str, list[str]] = {}
    for function, _, pieces in statements(ast.parse(path.read_text(encoding="utf-8"))):
        odd = [piece for piece in pieces if not CONSTANT.fullmatch(piece.rpartition(".")[2])]
        if odd:
            found.setdefault(f"{file}:{function}", []).extend(odd)
    return found


@pytest.mark.guarantee("P9")
def test_no_value_gets_into_the_text_of_a_statement() -> None:
    """Text is built from constants, or the function is in REVIEWED with its reason."""
    found: dict[str, list[str]] = {}
    for layer in LAYERS:
        for path in sorted((CHECKOUT / layer).rglob("*.py")):
            if "versions" not in path.parts:
                found |= strange(path)
    assert {place: odd for place, odd in found.items() if place not in REVIEWED} == {}
    assert sorted(set(REVIEWED) - set(found)) == [], "reviewed, and no longer there"


def test_every_statement_that_is_built_says_why_it_may() -> None:
    """An exception from ruff's rule against built statements has its reason beside it, or it is a hole."""
    lines = [
        f"{path.relative_to(CHECKOUT)}:{number}"
        for layer in LAYERS
        for path in sorted((CHECKOUT / layer).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if "noqa: S608" in line and " - " not in line.partition("noqa: S608")[2]
    ]
    assert lines == []


@pytest.mark.parametrize(
    "code",
    [
        "def f(conn, x):\n    conn.execute(text(f'SELECT {x}'))",
        "def f(conn, x):\n    conn.execute(text('SELECT ' + x))",
        "def f(conn, x):\n    conn.execute(text('SELECT %s' % x))",
        "def f(conn, x):\n    conn.exec_driver_sql('SELECT {}'.format(x))",
        "def f(conn, x):\n    asked = f'SELECT {x}'\n    conn.execute(text(asked))",
        "def f(conn, x):\n    driver.run(conn, f'SELECT {x}', {})",
        "def f(x):\n    return f'SELECT {x}'",
        "def f(x):\n    asked = 'UPDATE ' + x\n    return asked",
    ],
)
def test_the_lint_bites(code: str) -> None:
    """Each way of putting a value into a text is seen."""
    assert [pieces for _, _, pieces in statements(ast.parse(code))] == [["x"]]
