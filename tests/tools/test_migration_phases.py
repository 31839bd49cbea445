"""Tests that workers can keep running during every revision after the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import migrations
from tools.checks import migration_phases

VERSIONS = Path(migrations.__file__).parent / "versions"
FIRST = "0001_first_schema.py"


def test_revisions_are_compatible_with_running_workers() -> None:
    revisions = {path.name: path.read_text(encoding="utf-8") for path in VERSIONS.glob("*.py")}
    assert "create_table" in revisions.pop(FIRST)
    assert {
        name: problems for name, source in revisions.items() if (problems := migration_phases.find_problems(source))
    } == {}


def revision(phase: str, *operations: str) -> str:
    """The source of a revision with these operations."""
    body = "\n".join(f"    op.{operation}" for operation in operations)
    return f'from alembic import op\nimport sqlalchemy as sa\nphase = "{phase}"\n\n\ndef upgrade() -> None:\n{body}\n'


@pytest.mark.parametrize(
    ("phase", "operation", "words"),
    [
        ("expand", "drop_column('orders', 'fee')", "may still use it"),
        ("expand", "drop_table('orders')", "may still use it"),
        ("expand", "rename_table('orders', 'sales')", "old name"),
        ("contract", "rename_table('orders', 'sales')", "old name"),
        ("expand", "alter_column('orders', 'fee', new_column_name='charge')", "old name"),
        ("contract", "alter_column('orders', 'fee', type_=sa.Text())", "rewrites the table"),
        ("expand", "alter_column('orders', 'fee', nullable=False)", "may still write NULL"),
        ("expand", "add_column('orders', sa.Column('x', sa.Text(), nullable=False))", "allow NULL"),
        ("expand", "create_index('ix', 'orders', ['fee'])", "CONCURRENTLY"),
        ("expand", "create_check_constraint('ck', 'orders', 'fee >= 0')", "whole table"),
    ],
)
def test_incompatible_operations_are_reported(phase: str, operation: str, words: str) -> None:
    (problem,) = migration_phases.find_problems(revision(phase, operation))
    assert problem.startswith("line 7, ")
    assert words in problem


@pytest.mark.parametrize(
    ("phase", "operation"),
    [
        ("expand", "add_column('orders', sa.Column('x', sa.Text()))"),
        ("expand", "add_column('orders', sa.Column('x', sa.Text(), nullable=False, server_default=''))"),
        ("expand", "create_table('x', sa.Column('y', sa.Text(), nullable=False))"),
        ("expand", "create_index('ix', 'orders', ['fee'], if_not_exists=True)"),
        ("expand", "create_check_constraint('ck', 'orders', 'fee >= 0', postgresql_not_valid=True)"),
        ("contract", "drop_column('orders', 'fee')"),
        ("contract", "alter_column('orders', 'fee', nullable=False)"),
    ],
)
def test_compatible_operations_are_allowed(phase: str, operation: str) -> None:
    assert migration_phases.find_problems(revision(phase, operation)) == []


@pytest.mark.parametrize("phase", ["", "both", "Expand"])
def test_revision_without_a_phase_is_reported(phase: str) -> None:
    assert "it declares no phase" in migration_phases.find_problems(revision(phase, "drop_table('x')"))[0]
    template = (VERSIONS.parent / "script.py.mako").read_text(encoding="utf-8")
    assert f'phase = "{migration_phases.EXPAND}"' in template
