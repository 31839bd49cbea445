"""As whom does PostgreSQL run, since it refuses uid 0?

- An ordinary user: as that user; where that uid has no name (`docker run --user 12345`), which initdb refuses, as
  65534 inside a user namespace of its own.
- root, and the data already belongs to somebody: as the owner.
- root where user namespaces are allowed: as 65534 inside one. Outside it is still root's file access without root's
  powers, so that binaries and data may lie below /root (mode 700).
- root where they are refused (a plain container), or where a folder above the data is closed to root without its powers
  (somebody else's home): as 65534 for real, keeping the one capability that lets it reach data below folders it does not
  own. Programs that this account cannot reach are copied (`program_copy`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from workers.embedded.processes import LINUX, parent_death_hook

NOBODY = 65534
CLONE_NEWUSER = 0x10000000
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class RunAs:
    """Who a server process becomes between fork and exec. `uid` None: stays who it is."""

    uid: int | None = None
    gid: int | None = None
    namespace: bool = False

    @property
    def owner(self) -> int:
        """The uid that the server's files must belong to, seen from outside."""
        return os.getuid() if self.uid is None or self.namespace else self.uid

    def becoming(self, parent: int, death_signal: signal.Signals) -> Callable[[], None]:
        """What to call between fork and exec; `death_signal` arrives when `parent` dies."""
        leash = parent_death_hook(parent, death_signal)  # made before the fork: loading libc is not for the child
        libc = ctypes.CDLL(None, use_errno=True) if LINUX else None

        def between_fork_and_exec() -> None:
            self.become(libc)
            leash()

        return between_fork_and_exec

    def become(self, libc: ctypes.CDLL | None) -> None:
        """Change this process, for good."""
        if self.namespace and libc is not None:
            _enter_namespace(libc)
        elif self.uid is not None:
            _drop(libc, self.uid, self.gid if self.gid is not None else self.uid)


def choose_run_as(data: Path) -> RunAs:
    """Who may run PostgreSQL on `data` (which may not exist yet)."""
    if os.getuid() != 0:
        return RunAs() if _has_a_name() or not _namespaces_allowed() else RunAs(NOBODY, NOBODY, namespace=True)
    if data.exists() and data.stat().st_uid != 0:
        return RunAs(data.stat().st_uid, data.stat().st_gid)
    inside = RunAs(NOBODY, NOBODY, namespace=True)
    if _namespaces_allowed() and _asked_as(inside, lambda: os.access(data.parent, os.R_OK | os.W_OK | os.X_OK)):
        return inside
    return RunAs(NOBODY, NOBODY)


def can_read(identity: RunAs, files: Iterable[Path]) -> bool:
    """Whether `identity` may read these files, and run those that are programs: tried, as PostgreSQL's programs ask."""
    wanted = [(path, os.R_OK | (os.X_OK if path.stat().st_mode & 0o100 else 0)) for path in files]
    return _asked_as(identity, lambda: all(os.access(path, mode) for path, mode in wanted))


def chown_tree(tree: Path, identity: RunAs) -> None:
    """Make `tree` belong to `identity`, for data made while another way of leaving uid 0 was open."""
    if os.getuid() != 0 or not tree.exists() or tree.stat().st_uid == identity.owner:
        return
    group = identity.gid if identity.gid is not None and not identity.namespace else 0
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, identity.owner, group, follow_symlinks=False)


def _namespaces_allowed() -> bool:
    """Policies differ too much between kernels and containers to be read off."""
    return LINUX and _asked_as(RunAs(NOBODY, NOBODY, namespace=True), lambda: os.geteuid() == NOBODY)


def _asked_as(identity: RunAs, question: Callable[[], bool]) -> bool:
    """What a child that became `identity` answers; no when it cannot become that."""
    libc = ctypes.CDLL(None, use_errno=True) if LINUX else None
    child = os.fork()
    if child == 0:
        verdict = 1
        with contextlib.suppress(BaseException):
            identity.become(libc)
            verdict = 0 if question() else 1
        os._exit(verdict)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _has_a_name() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _enter_namespace(libc: ctypes.CDLL) -> None:
    uid, gid = os.geteuid(), os.getegid()  # inside, before the map is written, everybody is nobody
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "a user namespace was refused")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        Path("/proc/self", name).write_text(text)


def _drop(libc: ctypes.CDLL | None, uid: int, gid: int) -> None:
    if libc is not None:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if libc is not None:
        _keep_file_access(libc)


def _keep_file_access(libc: ctypes.CDLL) -> None:
    """Carry CAP_DAC_OVERRIDE, and nothing else, through exec. Where it was not ours to keep, do without."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    wanted = 1 << CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(wanted, wanted, wanted, 0, 0, 0)  # effective, permitted, inheritable; low then high
    if libc.capset(header, sets) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)
