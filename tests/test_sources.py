"""Does every citation in code, tests and docs lead somewhere inside the project?"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.rules_page import rule_book

HOUSE = Path(__file__).parent.parent
PAGE = HOUSE / "docs" / "sources.md"
NOT_CITING = {"docs/sources.md", "tests/test_sources.py"}
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml"}

_ID = re.compile(r"\b([RTNAEFXCIBPS])(\d{1,3})\b(?: to \1(\d{1,3})\b)?")
_NUMBER = r"\d{1,2}(?:\.\d{1,2})?(?![\d%])"
_SECTION = re.compile(
    rf"\b(rules|contract|reliability|promises|speed|house)(?:\.md)?(?:,? section)? ({_NUMBER}(?:(?:, | and | to ){_NUMBER})*)",
    re.IGNORECASE,
)
_PAPER = re.compile(r"(?<![/\w])(rules|contract|reliability|promises|speed|house)\.md\b(?!\))")
_INVARIANT = re.compile(r"\binvariant (\d)\b")
_TOPIC = re.compile(r"\[(\d{2,4}|KB\d+)\](?!\()")


def citations(text: str) -> set[str]:
    """What a text cites, each as the name of an anchor: `f27`, `rules-7.3`, `[72]`, `invariant-5`, `housemd`."""
    found = {f"invariant-{number}" for number in _INVARIANT.findall(text)}
    found |= {f"[{topic}]" for topic in _TOPIC.findall(text)}
    found |= {f"{paper}md" for paper in _PAPER.findall(text)}
    for kind, first, last in _ID.findall(text):
        found |= {f"{kind}{number}" for number in range(int(first), int(last or first) + 1)}
    for paper, sections in _SECTION.findall(text):
        for number in re.findall(_NUMBER, sections):
            found.add(f"invariant-{number}" if paper.lower() == "promises" else f"{paper.lower()}-{number}")
    return found


def entries() -> set[str]:
    """Where a citation can lead: anchors and headings of the page, its topics, the ids of the rule book, S1 to S6."""
    page = PAGE.read_text(encoding="utf-8")
    known = {rule for section in rule_book() for rule in section.rules}
    for anchor in re.findall(r'<a id="([^"]+)"></a>', page):
        kind, number = anchor[:1].upper(), anchor[1:]
        known.add(f"{kind}{int(number)}" if number.isdigit() else anchor)
    known |= {re.sub(r"[^\w -]", "", title).lower() for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    known |= {"contractmd"} | {f"[{topic}]" for topic in re.findall(r"^\| \[(\w+)\] \|", page, re.MULTILINE)}
    return known | set(re.findall(r"^\| (S\d) \|", (HOUSE / "docs" / "support.md").read_text("utf-8"), re.MULTILINE))


def _words(path: Path) -> str:
    """What a file says to people: of Python its comments and docstrings, of settings the comments, of pages all but code."""
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


def _tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=HOUSE, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [name for name in listed if Path(name).suffix in SUFFIXES and (HOUSE / name).is_file()]


def test_every_citation_has_an_entry() -> None:
    """Whoever reads the checkout, and nothing else, can look up what a comment refers to."""
    known = entries()
    lost = {
        name: sorted(missing)
        for name in _tracked()
        if name not in NOT_CITING and (missing := citations(_words(HOUSE / name)) - known)
    }
    assert lost == {}, "cited and explained nowhere: add an entry to docs/sources.md"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(rules.md 3.2 to 3.5 and 3.8)", {"rulesmd", "rules-3.2", "rules-3.5", "rules-3.8"}),
        ("Contract 2, 2.3: 128 characters", {"contract-2", "contract-2.3"}),
        ("reliability F27, X8; C42 to C44", {"F27", "X8", "C42", "C43", "C44"}),
        ("promises.md, invariant 4", {"promisesmd", "invariant-4"}),
        ("events fold back (promises.md 8)", {"promisesmd", "invariant-8"}),
        ("a reservation [270], staff [KB55]; [1](page.md)", {"[270]", "[KB55]"}),
        ("docs/rules.md has them", set()),
    ],
)
def test_citations_are_recognised(text: str, found: set[str]) -> None:
    """In each form in which the project writes them."""
    assert citations(text) == found


def test_links_of_the_page_lead_somewhere() -> None:
    """Files exist, and headings and anchors of the pages too."""
    page = PAGE.read_text(encoding="utf-8")
    for file, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page):
        target = (PAGE.parent / file).resolve() if file else PAGE
        assert target.exists(), file
        if anchor:
            assert anchor in _places(target.read_text(encoding="utf-8")), f"{file}#{anchor}"


def test_files_that_the_page_names_exist() -> None:
    """An entry points at code that is there."""
    named = re.findall(
        r"`((?:policies|models|tasks|schedules|workers|tests)/[\w/.]*)`", PAGE.read_text(encoding="utf-8")
    )
    assert [name for name in named if not (HOUSE / name).exists()] == []


def _places(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles} | set(
        re.findall(r'<a id="([^"]+)"></a>', text)
    )
