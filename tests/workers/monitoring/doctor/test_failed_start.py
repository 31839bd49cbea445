"""An embedded server that cannot start is named, and what doctor says about it helps."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import redis

from tests.workers.monitoring.doctor.findings import codes
from workers.embedded import ServerStartError, embedded_servers
from workers.monitoring.doctor import examine

pytestmark = pytest.mark.long


def test_a_damaged_append_only_file_is_named_and_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    with embedded_servers(tmp_path) as urls, contextlib.closing(redis.Redis.from_url(urls.broker_url)) as client:
        for number in range(100):
            client.set(f"key {number}", "x" * 100)
    (file,) = (tmp_path / "servers" / "valkey" / "appendonlydir").glob("*.incr.aof")
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = b"?" * 400
    file.write_bytes(bytes(content))
    with pytest.raises(ServerStartError), embedded_servers(tmp_path):
        pass
    found = next(one for one in examine() if one.code == "EMBEDDED_SERVER_CANNOT_START")
    assert "append only file" in found.message
    source, target = found.fix.split(",")[0].split()[1:3]
    Path(source).rename(target)
    with embedded_servers(tmp_path):
        assert "EMBEDDED_SERVER_CANNOT_START" not in codes(examine())


def test_a_damaged_database_is_named_with_the_way_to_a_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    with embedded_servers(tmp_path):
        pass
    (tmp_path / "servers" / "postgres" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(ServerStartError), embedded_servers(tmp_path):
        pass
    found = next(one for one in examine() if one.code == "EMBEDDED_SERVER_CANNOT_START")
    assert "pg_control" in found.message
    assert "./run restore FILE" in found.fix
