"""Check that prose cites only rules, guarantees, benchmarks and decisions that this repository defines."""

from __future__ import annotations

import ast
import functools
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tools.guarantees_page import guarantees
from tools.rules_page import rule_book
from workers.settings import CHECKOUT

DECISIONS = CHECKOUT / "docs" / "decisions"
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml"}

_ID = re.compile(r"\b([RTNAEFXCIBP])0?(\d{1,3})\b(?: to \1(\d{1,3})\b)?")
_SECTION = re.compile(
    r"\b(?:rules|contract|reliability|promises|speed|house)(?:\.md)?(?:,? section)? \d{1,2}\.\d{1,2}(?![\d%])",
    re.IGNORECASE,
)
_PAPER = re.compile(
    r"(?<![/\w])(?:contract|reliability|promises|house)\.md\b(?!\))|\breliability [FXC]\d|\binvariant \d\b"
)
_TOPIC = re.compile(r"\[(?:\d{2,4}|KB\d+)\](?!\()")
_CASE_ID = re.compile(r"^[A-Z]\d{1,3}(?= [A-Za-z])")
_DECISION = re.compile(r"(?:docs/)?decisions/(\d{4})\b|\bdecision (\d{1,2})\b")


def undefined_citations_in_files() -> list[str]:
    return [
        f"{path.relative_to(CHECKOUT)} cites {', '.join(sorted(citations))}, which this repository does not define"
        for path in _tracked_files()
        if undefined_citations(" ".join(path.read_text(encoding="utf-8").split()))  # most files: no need to parse them
        and (citations := undefined_citations(_prose(path)))
    ]


@functools.cache
def defined_ids() -> set[str]:
    """The ids of rules, guarantees and benchmarks."""
    benchmarks = re.findall(r"\bB\d{1,2}\b", (CHECKOUT / "docs" / "speed.md").read_text(encoding="utf-8"))
    return {rule for section in rule_book() for rule in section.rules} | set(guarantees()) | set(benchmarks)


@functools.cache
def defined_decisions() -> set[int]:
    return {int(path.name[:4]) for path in DECISIONS.glob("[0-9]*.md")}


def undefined_citations(text: str) -> set[str]:
    """What a text cites and the repository does not define."""
    ids = {
        f"{kind}{number}"
        for kind, first, last in _ID.findall(text)
        for number in range(int(first), int(last or first) + 1)
    }
    decisions = {int(path or number) for path, number in _DECISION.findall(text)}
    papers = {match.group() for pattern in (_SECTION, _PAPER, _TOPIC) for match in pattern.finditer(text)}
    return (ids - defined_ids()) | {f"decision {number}" for number in decisions - defined_decisions()} | papers


def _prose(path: Path) -> str:
    """Comments, docstrings and test cases of Python, comments of configuration, Markdown without its code blocks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        cases = case_ids(text) if path.is_relative_to(CHECKOUT / "tests") else ()
        return "\n".join((*_comments(text), *_docstrings(text), *cases))
    if path.suffix == ".md":
        return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(r"(?:^|\s)#(.*)$", text, re.MULTILINE))


def _comments(source: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield re.sub(r"noqa: [A-Z0-9, ]+", "", token.string)


def _docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield " ".join(node.value.value.split())


def case_ids(source: str) -> Iterator[str]:
    """Yield the ids before the names of test cases, which are strings in tables at the top of a module."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from _CASE_ID.findall(node.value)


def _tracked_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files"],  # noqa: S607 - a development command
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [CHECKOUT / name for name in listing.stdout.splitlines()]
    return [path for path in paths if path.suffix in SUFFIXES and path.is_file()]
