"""The account that PostgreSQL runs as, which must not be uid 0.

- Started by an ordinary user: that user. If the uid has no name (`docker run --user 12345`), initdb refuses it, and
  PostgreSQL runs as 65534 in a user namespace.
- Started by root, and the data belongs to another user: that user.
- Started by root where user namespaces are allowed: 65534 in a namespace. Outside the namespace the process still has
  uid 0, without capabilities, so programs and data may lie below /root (mode 700).
- Started by root where namespaces are refused (a plain container), or where the data's folder is closed to root without
  capabilities (another user's home): the real 65534, with CAP_DAC_OVERRIDE so that it can reach data below folders
  that it does not own. Programs that this account cannot reach are copied (`program_copy`).
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

from workers.embedded.processes import libc, parent_death_hook

NOBODY = 65534
CLONE_NEWUSER = 0x10000000
PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 8, 47, 2
CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class RunAs:
    """The account that a server process switches to between fork and exec; `uid` None keeps the current one."""

    uid: int | None = None
    gid: int = 0
    namespace: bool = False

    @property
    def owner(self) -> int:
        return os.getuid() if self.uid is None or self.namespace else self.uid

    def becoming(self, parent: int, death_signal: signal.Signals) -> Callable[[], None]:
        end_with_parent = parent_death_hook(parent, death_signal)

        def between_fork_and_exec() -> None:
            self.become()
            end_with_parent()

        return between_fork_and_exec

    def become(self) -> None:
        if self.namespace:
            _enter_namespace()
        elif self.uid is not None:
            _drop_root(self.uid, self.gid)

    def test(self, condition: Callable[[], bool]) -> bool:
        # The answer of a child process that became this account; False if it cannot.
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                self.become()
                status = 0 if condition() else 1
            os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def can_read(self, files: Iterable[Path]) -> bool:
        paths_and_modes = [(path, os.R_OK | (os.X_OK if path.stat().st_mode & 0o100 else 0)) for path in files]
        return self.test(lambda: all(os.access(path, mode) for path, mode in paths_and_modes))


def choose_run_as(data: Path) -> RunAs:
    if os.getuid() != 0:
        return RunAs() if _has_user_name() or not _namespaces_allowed() else RunAs(NOBODY, NOBODY, namespace=True)
    if data.exists() and data.stat().st_uid != 0:
        return RunAs(data.stat().st_uid, data.stat().st_gid)
    in_namespace = RunAs(NOBODY, NOBODY, namespace=True)
    if _namespaces_allowed() and in_namespace.test(lambda: os.access(data.parent, os.R_OK | os.W_OK | os.X_OK)):
        return in_namespace
    return RunAs(NOBODY, NOBODY)


def chown_tree(tree: Path, identity: RunAs) -> None:
    if os.getuid() != 0 or not tree.exists() or tree.stat().st_uid == identity.owner:
        return
    group = 0 if identity.namespace else identity.gid
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, identity.owner, group, follow_symlinks=False)


def _namespaces_allowed() -> bool:
    # Try to enter a namespace, as the rules of kernels and containers differ too much to be read from settings.
    return RunAs(NOBODY, NOBODY, namespace=True).test(lambda: os.geteuid() == NOBODY)


def _has_user_name() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _enter_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()  # read first: in the namespace all ids are 65534 until the maps are written
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "a user namespace was refused")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        Path("/proc/self", name).write_text(text)


def _drop_root(uid: int, gid: int) -> None:
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # Keep only CAP_DAC_OVERRIDE across exec; do nothing if this process may not keep it.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    capability = 1 << CAP_DAC_OVERRIDE
    # Effective, permitted, inheritable; low then high.
    sets = (ctypes.c_uint32 * 6)(capability, capability, capability, 0, 0, 0)
    if libc.capset(header, sets) == 0:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0)
