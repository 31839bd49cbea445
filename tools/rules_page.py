"""Generator of `docs/rules.md`: each rule, and the tests that state it.

`docs/rulebook.toml` has one sentence for each id. A test names the rules it states in its docstring (`R40`, or
`R40 to R42`); a written history names them in its `rules`.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.settings import CHECKOUT

RULE_BOOK = CHECKOUT / "docs" / "rulebook.toml"
RULES_PAGE = CHECKOUT / "docs" / "rules.md"
TESTS = CHECKOUT / "tests"

MAX_RANGE = 6
"""A longer range is a chapter: listing it would claim that every rule in it is tested."""

_MENTION = re.compile(r"\b([RTNAE])0?(\d{1,3})\b(?:(?: to |-|–)\1?0?(\d{1,3})\b)?")


@dataclass(frozen=True, slots=True)
class Section:
    """Rules that belong together: a heading, and a sentence for each id."""

    title: str
    rules: dict[str, str]


@dataclass(frozen=True, slots=True, order=True)
class TestReference:
    """A test that states a rule: its file, from the checkout on, and the name in it (none: the file is the test)."""

    file: str
    name: str = ""


def rules_page() -> str:
    """`docs/rules.md` as it should be."""
    tests = stating_tests()
    parts = [_HEAD]
    for section in rule_book():
        rows = [
            f"| {rule} | {says} | {'<br>'.join(link_tests(tests.get(rule, ())))} |"
            for rule, says in section.rules.items()
        ]
        parts.append("\n".join([f"## {section.title}", "", "| id | rule | stated by |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def rule_book() -> list[Section]:
    """The sections of the rule book, in the order of the file."""
    with RULE_BOOK.open("rb") as file:
        book = tomllib.load(file)
    return [Section(part.pop("title"), part) for part in book.values()]


@functools.cache
def stating_tests() -> dict[str, list[TestReference]]:
    """For each id the tests that state it, in the order of their files and names."""
    found: dict[str, set[TestReference]] = {}
    for rule, stated in (*_test_functions(), *_histories()):
        found.setdefault(rule, set()).add(stated)
    return {rule: sorted(tests) for rule, tests in found.items()}


def rule_ids(text: str, *, whole_chapters: bool = False) -> set[str]:
    """The ids in a text; `R40 to R42` names three, `N07` is N7.

    A range of many is a chapter, not a statement, unless each id has a case of its own (`whole_chapters`).
    """
    ids: set[str] = set()
    for kind, first, last in _MENTION.findall(text):
        numbers = range(int(first), int(last or first) + 1)
        if whole_chapters or len(numbers) <= MAX_RANGE:
            ids |= {f"{kind}{number}" for number in numbers}
    return ids


@functools.cache
def parse_test_file(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _test_functions() -> Iterator[tuple[str, TestReference]]:
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(parse_test_file(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                stated = TestReference(str(path.relative_to(CHECKOUT)), node.name)
                says = ast.get_docstring(node) or ""
                for rule in rule_ids(says, whole_chapters=_has_cases(node)):
                    yield rule, stated


def _has_cases(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("parametrize" in ast.unparse(decorator) for decorator in node.decorator_list)


def _histories() -> Iterator[tuple[str, TestReference]]:
    for path in sorted((TESTS / "histories").glob("*.expected.json")):
        stated = TestReference(str(path.relative_to(CHECKOUT)))
        rules = json.loads(path.read_text(encoding="utf-8")).get("rules", ())
        for rule in rules or rule_ids(path.name.partition("_")[0].upper()):  # e07_… is the worked example E7
            yield rule, stated


def link_tests(tests: Sequence[TestReference]) -> list[str]:
    """One link for each file, with the names that are in it; histories are named by their number."""
    files: dict[str, list[str]] = {}
    for test in tests:
        files.setdefault(test.file, []).append(test.name.removeprefix("test_"))
    return [_linked(file, names) for file, names in files.items()]


def _linked(file: str, names: list[str]) -> str:
    if file.endswith(".expected.json"):
        return f"[{Path(file).name.removesuffix('.expected.json')}](../{file})"
    return f"[{file.removeprefix('tests/')}](../{file}): {', '.join(name.replace('_', ' ') for name in names)}"


_HEAD = """# The rule book

One sentence for each rule, and the tests that state it: test functions by name, and written histories
(`tests/histories`, which `./run replay` plays). Code and tests cite rules by these ids.

`./run docs` generates this page from `docs/rulebook.toml` and the tests, and `./run check` compares it. R are rules,
T transitions, N notices, A decisions where BrickLink's documentation is silent, E worked examples."""
