"""The end of docs/tour.md: every file of the product with the first sentence of its docstring."""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path

from workers.settings import CHECKOUT

TOUR_PAGE = CHECKOUT / "docs" / "tour.md"
PACKAGES = ("policies", "models", "tasks", "schedules", "workers", "web")
HEADING = "## Every file\n"


def tour_page() -> str:
    """The tour as it is, with the list of files made again."""
    written_by_hand = TOUR_PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    files = [path for package in PACKAGES for path in sorted((CHECKOUT / package).rglob("*.py"), key=_place)]
    described = [(path, text) for path in files if (text := _first_paragraph(path)) and "versions" not in path.parts]
    lines = [written_by_hand + HEADING, "`./run docs` writes this list from the first lines of the files.", ""]
    for folder, entries in groupby(described, lambda entry: entry[0].parent.relative_to(CHECKOUT)):
        lines += [f"### {folder}/", "", "| file | contains |", "| --- | --- |"]
        lines += [f"| `{path.name}` | {text} |" for path, text in entries]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _place(path: Path) -> tuple[str, str]:
    return str(path.parent), path.name


def _first_paragraph(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())
