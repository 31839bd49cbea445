"""Checks of the repository's text that ruff, mypy and import-linter can't make; `./run check` runs each.

A check returns a sentence for each problem.
"""

from __future__ import annotations

from collections.abc import Callable

from tools.checks.citations import undefined_citations_in_files
from tools.checks.generated_files import stale_files
from tools.checks.layout import layout_problems
from tools.checks.rule_book import rule_book_problems
from tools.checks.sql_text import sql_text_problems

CHECKS: dict[str, Callable[[], list[str]]] = {
    "layout": layout_problems,
    "sql": sql_text_problems,
    "rules": rule_book_problems,
    "citations": undefined_citations_in_files,
    "generated": stale_files,
}
