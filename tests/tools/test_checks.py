"""Tests of the checks that `./run check` makes itself: each reports a bad example."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.checks.citations import case_ids, undefined_citations
from tools.checks.generated_files import problems_of_example, stale_pages
from tools.checks.layout import layout_problems
from tools.checks.rule_book import is_sentence, problems_of_guarantees, problems_of_rules
from tools.checks.sql_text import inserted_values, sql_text_problems
from tools.docs import PAGES
from tools.rules_page import Section, rule_ids
from workers.settings import CHECKOUT


def write_module(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.guarantee("P9")
@pytest.mark.parametrize(
    "code",
    [
        "def f(conn, x):\n    conn.execute(text(f'SELECT {x}'))",
        "def f(conn, x):\n    conn.execute(text('SELECT ' + x))",
        "def f(conn, x):\n    conn.execute(text('SELECT %s' % x))",
        "def f(conn, x):\n    conn.exec_driver_sql('SELECT {}'.format(x))",
        "def f(conn, x):\n    statement = f'SELECT {x}'\n    conn.execute(text(statement))",
        "def f(conn, x):\n    driver.run(conn, f'SELECT {x}', {})",
        "def f(x):\n    return f'SELECT {x}'",
        "def f(x):\n    statement = 'UPDATE ' + x\n    return statement",
    ],
)
def test_values_in_the_text_of_a_statement_are_reported(code: str) -> None:
    assert inserted_values(ast.parse(code)) == {"f": ["x"]}


def test_built_statements_need_a_review_and_a_reason(tmp_path: Path) -> None:
    write_module(tmp_path, "models/a.py", "def f(c, x):\n    c.execute(f'SELECT {x}')  # noqa: S608\n")
    assert sql_text_problems(tmp_path) == [
        "models/a.py:2: `noqa: S608` without a reason",
        "models/a.py:f puts x into the text of a statement: bind it, or add the function to REVIEWED",
    ]


def test_parameters_in_the_driver_s_style_and_too_many_texts_for_it_are_reported(tmp_path: Path) -> None:
    texts = "".join(f"S{n} = text('SELECT {n}')\nexecute(conn, S{n}, {{}})\n" for n in range(13))
    write_module(tmp_path, "models/a.py", texts + "QUERY = 'SELECT %(id)s'\nconn.execute(S0)\n")
    too_many, style = sql_text_problems(tmp_path)
    assert too_many.startswith("13 texts go to the driver, at most 12 may: models/a.py:S0, ")
    assert style == "models/a.py:27: write parameters as `:name`"


def test_too_many_long_texts_of_sql_are_reported(tmp_path: Path) -> None:
    text = '"""\nSELECT a\nFROM b\nWHERE c\nLIMIT 1\n"""\n'
    write_module(tmp_path, "models/a.py", "A = " + text + ("B = f" + text.replace("a", "{x}")) * 39)
    assert sql_text_problems(tmp_path) == []
    write_module(tmp_path, "models/b.py", "C = " + text)
    (problem,) = sql_text_problems(tmp_path)
    assert problem.startswith("41 long texts of SQL, at most 40 may be: models/a.py:1, models/a.py:7, ")


def test_unknown_packages_meaningless_names_and_broken_links_are_reported(tmp_path: Path) -> None:
    write_module(tmp_path, "extras/a.py")
    write_module(tmp_path, "models/utils.py")
    write_module(tmp_path, "docs/a.md", "[b](b.md) [a](a.md#part) [c](https://example.org)")
    assert layout_problems(tmp_path) == [
        "docs/a.md links to b.md, which does not exist",
        "extras/ is neither a layer nor development code",
        "models/utils.py: the name says nothing",
    ]


def test_a_top_of_workers_that_grows_is_reported(tmp_path: Path) -> None:
    for number in range(15):
        write_module(tmp_path, f"workers/m{number}.py")
    write_module(tmp_path, "workers/extras/__init__.py")
    write_module(tmp_path, "workers/mail/__init__.py")
    assert layout_problems(tmp_path) == [
        "workers/ has 15 modules at its top; at most 14 belong there",
        "workers/extras/ is not one of its packages",
    ]


def test_rules_that_are_missing_unknown_repeated_or_untested_are_reported() -> None:
    sections = [Section("x", {"R1": "Too short.", "R105": "A sentence of more than thirty characters."})]
    problems = problems_of_rules(
        [*sections, Section("y", {"R105": "A sentence of more than thirty characters."})], {"R2"}
    )
    assert "R2 is missing in docs/rulebook.toml" in problems
    assert problems[-6:] == [
        "R105 is in docs/rulebook.toml twice",
        "R1 is not one sentence of useful length",
        "R1 is stated by no test",
        "R105 is stated by no test",
        "R105 is stated by no test",
        "a test states R2, which is no rule",
    ]


@pytest.mark.parametrize(
    "text", ["no capital, but more than thirty characters.", "A sentence | with a bar that breaks it."]
)
def test_sentences_that_break_the_table_are_reported(text: str) -> None:
    assert not is_sentence(text)
    assert is_sentence("A buyer and a seller file one request at a time.")


def test_guarantees_that_no_test_shows_are_reported() -> None:
    sentences = {f"P{number}": "**One.** Two." for number in range(1, 9)} | {"P9": "plain"}
    assert problems_of_guarantees(sentences, {f"P{number}" for number in range(2, 10)}) == [
        "P9 does not begin in bold or end in a period",
        "P1 is shown by no test",
    ]


def test_a_page_that_differs_from_its_generator_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAGES, CHECKOUT / "README.md", lambda: "another text")
    assert CHECKOUT / "README.md" in stale_pages()


def test_settings_that_the_example_lacks_or_does_not_explain_are_reported() -> None:
    problems = problems_of_example("# Where.\n#DATABASE_URL=x\n\n#CELERY_BROKER_URL=x\n#UNWIND_NOTHING=x\n")
    assert ".env.example lacks UNWIND_DATA" in problems
    assert ".env.example has UNWIND_NOTHING, which nothing reads" in problems
    assert [text for text in problems if "comment" in text] == [".env.example has no comment above CELERY_BROKER_URL"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("States R40 to R42 and T7.", {"R40", "R41", "R42", "T7"}),
        ("N07: sent once.", {"N7"}),
        ("R1 to R62 are a chapter.", set()),
        ("ERR7, A11Y and 3R2 are no ids; A4 is paper.", {"A4"}),
    ],
)
def test_short_ranges_name_each_rule_and_chapters_none(text: str, ids: set[str]) -> None:
    assert rule_ids(text) == ids


def test_parametrized_tests_may_name_a_chapter() -> None:
    assert len(rule_ids("N1 to N18.", whole_chapters=True)) == 18


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


def test_ids_of_test_cases_are_citations() -> None:
    source = 'CASES = [("C24 sold out", 1), ("R66 the lot grows", 2), ("plain", "GET /C24 x")]'
    assert undefined_citations(" ".join(case_ids(source))) == {"C24"}
