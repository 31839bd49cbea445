"""Tests that CONTRIBUTING's recipe for a command works, word for word, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.plugins.servers import libpq_url
from tests.plugins.sql_interface import submit_command
from tests.plugins.stored_rows import DatabaseRows
from tests.waiting import wait_until

CHECKOUT = Path(__file__).resolve().parents[1]
STEP = re.compile(r"At the end of\s+`([\w/.]+)`:\n\n +```python\n(.*?) +```\n", re.DOTALL)
FACTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("members.record", {"member_id": "s", "handle": "Sam", "email": "s@example.org"}),
    ("members.record", {"member_id": "b", "handle": "Bo", "email": "b@example.org"}),
    (
        "inventory.record_lot",
        {
            "lot": {
                "lot_id": 1,
                "seller_id": "s",
                "item": {"no": "3001", "type": "PART"},
                "color_id": 5,
                "quantity": 10,
                "new_or_used": "N",
                "unit_price": "1.0000",
            }
        },
    ),
    (
        "orders.submit",
        {"order_id": 7, "buyer_id": "b", "seller_id": "s", "lines": [{"lot_id": 1, "quantity": 1}]},
    ),
    ("ocr.file", {"order_id": 7, "member_id": "b", "reason": "B_MUTUAL", "comment": "please"}),
)
ESCALATE = {"order_id": 7, "member_id": "b", "comment": "no answer at all"}


class Copy:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.touched: list[str] = []
        ours = ("UNWIND_", "DATABASE_", "CELERY_")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            "UNWIND_VENV": sys.prefix,
            "UNWIND_DATA": str(root.parent / "data"),
        }

    def run(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [*words], cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def send(self, task: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            self.run("./run", "send", task, "--json", json.dumps(arguments), check=False)
        )
        return answer


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the checkout in which the recipe was followed."""
    root = tmp_path_factory.mktemp("contribution") / "unwind"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    for name in filter(lambda name: (CHECKOUT / name).is_file(), listed.stdout.splitlines()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, root / name)
    if (CHECKOUT / ".mypy_cache").is_dir():  # a minute less
        shutil.copytree(CHECKOUT / ".mypy_cache", root / ".mypy_cache")
    made = Copy(root)
    made.run("git", "init", "-q")
    made.run("git", "add", "-A")
    for file, code in STEP.findall((CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        with (root / file).open("a", encoding="utf-8") as opened:
            opened.write("\n\n" + textwrap.dedent(code))
    made.touched = made.run("git", "diff", "--name-only").splitlines()
    made.run("./run", "docs")
    return made


@pytest.fixture(scope="module")
def installation(copy: Copy) -> Iterator[Copy]:
    copy.run("./run", "up", "--detach")
    try:
        for task, arguments in FACTS:
            assert copy.send(task, arguments)["outcome"] == "done"
        yield copy
    finally:
        copy.run("./run", "down")


@pytest.mark.long
def test_the_recipe_touches_three_files_and_leaves_everything_clean(copy: Copy) -> None:
    assert sorted(copy.touched) == ["policies/ocr.py", "tasks/ocr.py", "tests/policies/test_ocr.py"]
    assert "All clean." in copy.run("./run", "check")
    tests = ("tests/policies/test_ocr.py", "tests/tasks/test_declarations.py", "tests/tasks/test_bad_input.py")
    copy.run("./run", "test", *tests, "-q", "-k", "staff or escalate or declaration")


@pytest.mark.long
def test_the_new_command_has_a_schema_an_example_and_a_line_in_the_docs(copy: Copy) -> None:
    schema = json.loads((copy.root / "contract" / "ocr.escalate.schema.json").read_text())
    assert schema["required"] == ["order_id", "comment"]
    example = json.loads((copy.root / "contract" / "examples" / "ocr.escalate.json").read_text())
    assert example["arguments"]["comment"] == "no answer at all"
    assert "| `ocr.escalate` | Ask staff, as the buyer," in (copy.root / "docs" / "commands.md").read_text()


@pytest.mark.long
def test_the_new_command_is_answered_through_both_interfaces(installation: Copy) -> None:
    by_message = installation.send("ocr.escalate", ESCALATE)
    assert (by_message["outcome"], by_message["code"]) == ("refused", "TOO_EARLY")
    exported = dict(re.findall(r"export (\w+)=(\S+)", installation.run("./run", "env")))
    database_url = exported["DATABASE_URL"].strip("'").replace("postgresql:", "postgresql+psycopg:")
    with psycopg.connect(libpq_url(database_url), autocommit=True) as conn:
        receipt = submit_command(conn, "ocr.escalate", ESCALATE, "by-sql")
    assert receipt == {"code": None, "accepted": True, "request_id": "by-sql"}
    rows = DatabaseRows(database_url)
    wait_until(lambda: rows.command_answer("by-sql").state == "answered", what="the answer")
    assert rows.command_answer("by-sql").answer == by_message | {"request_id": "by-sql"}


@pytest.mark.long
def test_the_new_command_is_offered(installation: Copy) -> None:
    answer = installation.send("orders.options", {"order_id": 7, "member_id": "b"})
    options = {option["action"]: option for option in answer["effects"]["options"]}
    assert options["ocr.escalate"]["code"] == "TOO_EARLY"
    assert "ask staff to look at the request (ocr.escalate)" in installation.run(
        "./run", "explain", "order", "7", "--all"
    )
