"""Tests of the search for the programs of the servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.embedded import binaries
from workers.embedded.binaries import ServerBinaryNotFound


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_system_programs_are_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis must be 6.2 or newer."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    program(tmp_path / "bin" / "postgres", "postgres (PostgreSQL) 17.2 (Somewhere)")
    program(tmp_path / "bin" / "initdb", "initdb (PostgreSQL) 17.2")
    program(tmp_path / "bin" / "redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=libc")
    assert binaries.find_postgres_bin() == tmp_path / "bin"
    assert binaries.find_valkey_server() == tmp_path / "bin" / "redis-server"


def test_programs_that_are_too_old_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLMOVE came with Redis 6.2."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    program(tmp_path / "bin" / "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=libc")
    with pytest.raises(ServerBinaryNotFound, match="CELERY_BROKER_URL"):
        binaries.find_valkey_server()
