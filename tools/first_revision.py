"""Regeneration of the first revision, while nothing is released: `python -m tools.first_revision`."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

from alembic.autogenerate import render_python_code
from alembic.operations import ops
from sqlalchemy import Index, Table

from models import migrations
from models.ddl.complete_metadata import metadata

LINE_LENGTH = 120
FIRST = Path(migrations.__file__).parent / "versions" / "0001_first_schema.py"

_WRITTEN_IN = "sa.text('((pg_current_xact_id()::text)::bigint + unwind.feed_base())')"
_HEAD = '''"""The first schema: all tables, then triggers and grants.  Written by `python -m tools.first_revision`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from models.ddl.complete_metadata import ddl_statements
from models.feed import FEED_BASE

WRITTEN_IN = sa.text("((pg_current_xact_id()::text)::bigint + unwind.feed_base())")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Tables, indexes, triggers, roles."""
    op.execute(sa.text(FEED_BASE.format(base=0)))
'''
_TAIL = '''
    for statement in ddl_statements():
        op.execute(sa.text(statement.replace(":", r"\\:")))


def downgrade() -> None:
    """Schemas only go forward: restore a backup instead."""
    raise NotImplementedError
'''


def first_revision() -> str:
    tables = [_create_table(table) for table in metadata.sorted_tables]
    sequences = [
        f'    op.execute(sa.text("CREATE SEQUENCE {s.schema}.{s.name} '
        f'AS bigint MINVALUE {s.minvalue} START {s.start}"))\n'
        for s in metadata._sequences.values()  # there is no public list of them
    ]
    return _HEAD + "".join([*sequences, *tables]) + _TAIL


def _create_table(table: Table) -> str:
    step = ops.UpgradeOps(ops=[ops.CreateTableOp.from_table(table)])
    code = render_python_code(step, sqlalchemy_module_prefix="sa.", alembic_module_prefix="op.")
    code = code.replace("astext_type=Text()", "astext_type=sa.Text()").replace(_WRITTEN_IN, "WRITTEN_IN")
    lines = [line for line in code.splitlines() if not line.lstrip().startswith("# ###")]
    indexes = [f"    {_index(index)},\n" for index in sorted(table.indexes, key=lambda index: str(index.name))]
    columns, schema, end = "\n".join(lines).rpartition("    schema=")
    return f"{columns}{''.join(indexes)}{schema}{end}\n"


def _index(index: Index) -> str:
    # A part of its table, so that neither is named again.
    arguments = [repr(name) for name in (index.name, *index.columns.keys())]
    if index.unique:
        arguments.append("unique=True")
    if (where := index.dialect_options["postgresql"]["where"]) is not None:
        arguments.append(f"postgresql_where=sa.text({str(where)!r})")
    return f"sa.Index({', '.join(arguments)})"


def _format(path: Path) -> None:
    command = [sys.executable, "-m", "ruff", "format", "--quiet", str(path)]
    subprocess.run(command, check=True)
    path.write_text(re.sub(r'^( +)"(.+)",$', _split, path.read_text(), flags=re.MULTILINE))
    subprocess.run(command, check=True)


def _split(line: re.Match[str]) -> str:
    if len(line[0]) <= LINE_LENGTH:
        return line[0]
    indent, content = line.groups()
    parts = textwrap.wrap(content, LINE_LENGTH - len(indent) - 3, drop_whitespace=False, break_on_hyphens=False)
    return "\n".join(f'{indent}"{part}"' for part in parts) + ","


if __name__ == "__main__":
    FIRST.parent.mkdir(exist_ok=True)
    FIRST.write_text(first_revision())
    _format(FIRST)
