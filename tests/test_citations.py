"""Checks that prose cites only rules, guarantees, benchmarks and decisions that this repository defines."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.guarantees_page import guarantees
from tools.rules_page import rule_book

CHECKOUT = Path(__file__).resolve().parents[1]
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
_DECISION = re.compile(r"(?:docs/)?decisions/(\d{4})\b|\bdecision (\d{1,2})\b")


def defined_ids() -> set[str]:
    """The ids of rules, guarantees and benchmarks."""
    benchmarks = re.findall(r"\bB\d{1,2}\b", (CHECKOUT / "docs" / "speed.md").read_text(encoding="utf-8"))
    return {rule for section in rule_book() for rule in section.rules} | set(guarantees()) | set(benchmarks)


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
    """Comments and docstrings of Python, comments of configuration, and Markdown without its code blocks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return "\n".join((*_comments(text), *_docstrings(text)))
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


def _tracked_files() -> list[Path]:
    names = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    paths = [CHECKOUT / name for name in names.splitlines()]
    return [path for path in paths if path.suffix in SUFFIXES and path.is_file()]


def test_every_citation_is_defined_in_this_repository() -> None:
    undefined = {
        str(path.relative_to(CHECKOUT)): sorted(citations)
        for path in _tracked_files()
        if path != Path(__file__).resolve() and (citations := undefined_citations(_prose(path)))
    }
    assert undefined == {}, "cite a rule of docs/rules.md or a page of docs/decisions, or state the reason itself"


@pytest.mark.parametrize(
    ("text", "citations"),
    [
        ("R40 to R42, N7, A4 and T23 are rules; P1 is a guarantee", set()),
        ("R999 is no rule", {"R999"}),
        ("F27, X8; C42 to C44", {"F27", "X8", "C42", "C43", "C44"}),
        ("(rules.md 3.2)", {"rules.md 3.2"}),
        ("Contract 2.3: 128 characters", {"Contract 2.3"}),
        ("see promises.md, invariant 4", {"promises.md", "invariant 4"}),
        ("a reservation [270], staff [KB55]; [1](page.md)", {"[270]", "[KB55]"}),
        ("docs/decisions/0012 and decision 5", set()),
        ("docs/decisions/0099 and decision 98", {"decision 99", "decision 98"}),
    ],
)
def test_undefined_citations_are_recognised(text: str, citations: set[str]) -> None:
    assert undefined_citations(text) == citations
