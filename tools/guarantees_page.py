"""Generator of the test lists in `docs/guarantees.md`.

The page itself holds the sentences. A test names the guarantee it shows with the marker `guarantee("P1")` on the
function
or on its file.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from tools.rules_page import TESTS, TestReference, link_tests, parse_test_file
from tools.stress_page import with_figures
from workers.settings import CHECKOUT

GUARANTEES_PAGE = CHECKOUT / "docs" / "guarantees.md"

_CHAPTER = re.compile(r"^## (P\d)\n+(.+?)(?=\n\n<!-- tests of \1 -->)", re.MULTILINE | re.DOTALL)
_LIST = re.compile(r"^(<!-- tests of (P\d) -->\n).*?(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
_MARKED = re.compile(r"pytest\.mark\.guarantee\(([^)]*)\)")


def guarantees() -> dict[str, str]:
    """Each guarantee by its id, as it is written: the first words bold, on one line."""
    return {guarantee: " ".join(says.split()) for guarantee, says in _CHAPTER.findall(_page())}


def guarantees_page() -> str:
    """`docs/guarantees.md` as it should be: its sentences as they are, lists from the markers, figures from
    `docs/stress/`."""
    shown = showing_tests()
    return with_figures(_LIST.sub(lambda found: found.group(1) + _list(shown.get(found.group(2), [])), _page()))


@functools.cache
def showing_tests() -> dict[str, list[TestReference]]:
    """For each guarantee the tests that show it, in the order of their files and names."""
    found: dict[str, set[TestReference]] = {}
    for guarantee, test in _markers():
        found.setdefault(guarantee, set()).add(test)
    return {guarantee: sorted(tests) for guarantee, tests in found.items()}


def _page() -> str:
    return GUARANTEES_PAGE.read_text(encoding="utf-8")


def _list(tests: list[TestReference]) -> str:
    return "".join(f"- {line}\n" for line in link_tests(tests))


def _markers() -> Iterator[tuple[str, TestReference]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        file, module = str(path.relative_to(CHECKOUT)), parse_test_file(path)
        of_file = [
            guarantee
            for node in module.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
            for guarantee in _named(node.value)
        ]
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                own = [guarantee for decorator in node.decorator_list for guarantee in _named(decorator)]
                for guarantee in (*of_file, *own):
                    yield guarantee, TestReference(file, node.name)


def _named(node: ast.expr) -> list[str]:
    """The guarantees named by the markers in an expression, also those of single parameters."""
    return [guarantee for names in _MARKED.findall(ast.unparse(node)) for guarantee in re.findall(r"P\d", names)]
