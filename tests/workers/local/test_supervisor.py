"""Tests of the supervisor: readiness, restarts, stopping, and clean-up after a supervisor that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

from workers.embedded.processes import ProcessIdentity, identify_process, is_alive, wait_until
from workers.local import supervisor as supervision
from workers.local.parent_death import with_parent_death
from workers.local.supervisor import ProgramFailed, SupervisedProgram, Supervisor, kill_leftover_programs

CHECKOUT = Path(__file__).resolve().parents[3]

# A process with one child, both waiting for a signal; reports that in the log and in the ready file.
GROUP = """
import os, signal, subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("child", child.pid, flush=True)
pathlib.Path(os.environ["UNWIND_READY_FILE"]).touch()
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), print("ended well", flush=True), sys.exit(0)))
while True:
    signal.pause()
"""
IGNORES_SIGTERM = """
import os, signal, pathlib
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
pathlib.Path(os.environ["UNWIND_READY_FILE"]).touch()
while True:
    signal.pause()
"""

# Counts in the log the signals that it receives until none has come for half a second.
COUNTING = """
import os, signal, pathlib
from workers.embedded.processes import parent_death_hook
parent_death_hook(os.getppid(), signal.SIGTERM)()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path(os.environ["UNWIND_READY_FILE"]).touch()
signal.sigwait([signal.SIGTERM])
print("signal", flush=True)
while signal.sigtimedwait([signal.SIGTERM], 0.5):
    print("signal", flush=True)
"""


def group(name: str = "group", program: str = GROUP) -> SupervisedProgram:
    return SupervisedProgram(name, [sys.executable, "-c", program])


def child_of(supervisor: Supervisor, name: str = "group") -> ProcessIdentity:
    lines = supervisor.log(name).read_text().split()
    return identify_process(int(lines[len(lines) - 1 - lines[::-1].index("child") + 1]))


def test_program_is_stopped_with_one_signal(tmp_path: Path) -> None:
    """A worker that got the parent death signal, too, sometimes waited for itself until it was killed."""
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(group(program=COUNTING))
        supervisor.wait_ready(10)
    assert supervisor.log("group").read_text().split() == ["signal"]


def test_program_runs_until_it_is_stopped_with_term(tmp_path: Path) -> None:
    """TERM first, so that current work is finished."""
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(group())
        supervisor.wait_ready(10)
        head, child = identify_process(supervisor.pid("group")), child_of(supervisor)
        assert is_alive(head)
        assert os.getpgid(head.pid) == head.pid, "a group of its own: Ctrl-C in the terminal is for the supervisor"
    assert not is_alive(head)
    assert not is_alive(child)
    assert "ended well" in (tmp_path / "logs" / "group.log").read_text()
    assert not (tmp_path / "run" / "programs.json").exists()


def test_signal_during_the_start_of_the_thread_ends_it_cleanly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Supervisor(tmp_path):
        pass


def test_dead_program_is_restarted_and_its_children_are_ended(tmp_path: Path) -> None:
    """Orphaned children would keep taking messages."""
    messages: list[str] = []
    with Supervisor(tmp_path, on_event=messages.append) as supervisor:
        supervisor.start(group())
        supervisor.wait_ready(10)
        first, orphan = identify_process(supervisor.pid("group")), child_of(supervisor)
        os.kill(first.pid, signal.SIGKILL)
        assert wait_until(lambda: supervisor.restarts == 1 and supervisor.is_ready("group"), 10)
        assert supervisor.pid("group") != first.pid
        assert wait_until(lambda: not is_alive(orphan), 5)
    assert messages == ["group ended with -9: restarting it"]


def test_failed_restart_is_tried_again(tmp_path: Path) -> None:
    """A full disk must not end the supervising thread: all programs would end with it."""
    failed = threading.Event()

    def note(message: str) -> None:
        if "cannot be restarted" in message:
            failed.set()

    with Supervisor(tmp_path, on_event=note) as supervisor:
        supervisor.start(group())
        supervisor.wait_ready(10)
        log = supervisor.log("group")
        log.rename(log.with_suffix(".aside"))
        log.mkdir()
        os.kill(supervisor.pid("group"), signal.SIGKILL)
        assert failed.wait(10)
        log.rmdir()
        assert wait_until(lambda: supervisor.restarts == 1 and supervisor.is_ready("group"), 10)


def test_crash_loop_backs_off_and_is_reported(tmp_path: Path) -> None:
    """A crash loop must not occupy the machine."""
    with Supervisor(tmp_path) as supervisor:
        words = [sys.executable, "-c", "raise SystemExit('no such queue')"]
        supervisor.start(SupervisedProgram("broken", words, ready=lambda: False))
        with pytest.raises(ProgramFailed, match="no such queue"):
            supervisor.wait_ready(30)
        assert supervisor.restarts <= 3


def test_program_that_never_gets_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        words = [sys.executable, "-c", "import signal; print('waiting for a miracle', flush=True); signal.pause()"]
        supervisor.start(SupervisedProgram("slow", words, ready=lambda: False))
        assert wait_until(lambda: "miracle" in supervisor.tail("slow"), 10)
        with pytest.raises(ProgramFailed, match="waiting for a miracle"):
            supervisor.wait_ready(0.1)


def test_program_that_ignores_signals_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_SIGNALS", ((signal.SIGTERM, 0.2), (signal.SIGQUIT, 0.2)))
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(group(program=IGNORES_SIGTERM))
        supervisor.wait_ready(10)
        head = identify_process(supervisor.pid("group"))
    assert not is_alive(head)


def test_one_of_several_programs_can_be_stopped(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        for name in ("a", "b"):
            supervisor.start(group(name))
        supervisor.wait_ready(10)
        stopped, running = identify_process(supervisor.pid("a")), identify_process(supervisor.pid("b"))
        supervisor.stop(["a"])
        assert not is_alive(stopped)
        assert is_alive(running)
        with pytest.raises(KeyError):
            supervisor.pid("a")


def test_orphans_of_a_killed_supervisor_are_ended_by_the_next(tmp_path: Path) -> None:
    story = f"""
        import signal
        from pathlib import Path
        from tests.workers.local.test_supervisor import group
        from workers.local.supervisor import Supervisor
        supervisor = Supervisor(Path({str(tmp_path)!r})).__enter__()
        supervisor.start(group())
        supervisor.wait_ready(20)
        print(supervisor.pid("group"), flush=True)
        signal.pause()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(story)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    with process:
        assert process.stdout is not None
        head = identify_process(int(process.stdout.readline()))
        process.kill()
    assert is_alive(head), "started without parent death signal: stands for a process that missed it"
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], process_group=0)
    try:
        with Supervisor(tmp_path):
            assert wait_until(lambda: not is_alive(head), 5)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_process_with_a_reused_id_is_not_touched(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], process_group=0)
    record = tmp_path / "programs.json"
    record.write_text(
        f'{{"token": "of yesterday", "programs": {{"commands": {{"pid": {stranger.pid}, "started": 1}}}}}}'
    )
    try:
        kill_leftover_programs(record)
        assert stranger.poll() is None
        assert not record.exists()
    finally:
        stranger.kill()
        stranger.wait()


def test_program_ends_with_its_parent(tmp_path: Path) -> None:
    """The kernel sends TERM when the parent is killed."""
    story = """
        import os, signal, subprocess, sys
        os.environ["UNWIND_READY_FILE"] = ""
        from workers.local.parent_death import with_parent_death
        words = with_parent_death(["--version"])
        words[-1:] = []
        code = "import runpy, signal, sys; import celery.bin.celery as c; c.main = signal.pause; "
        code += "print('up', flush=True); "
        code += "runpy.run_module('workers.local.parent_death', run_name='__main__', alter_sys=True)"
        child = subprocess.Popen([sys.executable, "-c", code, *words[3:]])
        print(child.pid, flush=True)
        signal.pause()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(story)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    with process:
        assert process.stdout is not None
        output = [process.stdout.readline(), process.stdout.readline()]
        child = identify_process(int(next(line for line in output if line.strip().isdigit())))
        sleeping = lambda: psutil.Process(child.pid).status() == "sleeping"  # noqa: E731 - one question
        assert wait_until(sleeping, 10)
        process.kill()
    assert wait_until(lambda: not is_alive(child), 10)


def test_a_program_that_ignores_the_death_signal_is_killed_with_its_group(tmp_path: Path) -> None:
    ignores_sigterm = """
        import os, signal, subprocess, sys
        from workers.local import parent_death
        parent_death.GRACE_SECONDS = 0.2
        parent_death.end_on_parent_death(int(sys.argv[1]))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print(os.getpid(), child.pid, flush=True)
        while True:
            signal.pause()
    """
    parent = """
        import os, signal, subprocess, sys
        subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], process_group=0)
        signal.pause()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent), textwrap.dedent(ignores_sigterm)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    with process:
        assert process.stdout is not None
        programs = [identify_process(int(pid)) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(programs) == 2
    assert wait_until(lambda: not any(is_alive(program) for program in programs), 15)


def test_parent_death_launcher_gets_the_parent() -> None:
    words = with_parent_death(["-A", "workers.app", "worker"])
    assert words[1:] == ["-m", "workers.local.parent_death", str(os.getpid()), "-A", "workers.app", "worker"]
    orphan = subprocess.run(
        [*words[:3], "1", "--version"], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=False
    )
    assert orphan.returncode == 125
