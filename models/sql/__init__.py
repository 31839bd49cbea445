"""SQL statements, one per file."""

from __future__ import annotations

from pathlib import Path


def read_sql(name: str) -> str:
    _, _, statement = (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8").partition("\n\n")
    return statement


def load_sql(name: str) -> str:
    """Return the statement in `name`.sql without comments and indentation, which would be sent with each use."""
    lines = (line.strip() for line in read_sql(name).splitlines())
    return " ".join(line for line in lines if not line.startswith("--"))
