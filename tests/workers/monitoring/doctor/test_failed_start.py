"""An embedded server that cannot start is named, and what doctor says about it helps."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import redis

from tests.workers.monitoring.doctor.findings import codes
from workers.embedded.client import embedded_servers
from workers.embedded.servers import ServerStartError
from workers.monitoring.doctor import examine

pytestmark = pytest.mark.long


@pytest.mark.long
def test_damaged_append_only_file_is_reported_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    finding = next(finding for finding in examine()[0] if finding.code == "EMBEDDED_SERVER_CANNOT_START")
    assert "append only file" in finding.message
    source, target = finding.fix.split(",")[0].split()[1:3]
    Path(source).rename(target)
    with embedded_servers(tmp_path):
        assert "EMBEDDED_SERVER_CANNOT_START" not in codes(examine()[0])


@pytest.mark.long
def test_damaged_database_is_reported_with_the_restore_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path))
    with embedded_servers(tmp_path):
        pass
    (tmp_path / "servers" / "postgres" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(ServerStartError), embedded_servers(tmp_path):
        pass
    finding = next(finding for finding in examine()[0] if finding.code == "EMBEDDED_SERVER_CANNOT_START")
    assert "pg_control" in finding.message
    assert "./run restore FILE" in finding.fix
