"""A newcomer's first hour: a machine without anything, and what README and docs/integrate.md say, typed as printed."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from policies.timestamps import parse_timestamp
from tests.waiting import wait_until

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/integrate.md", "docs/operate.md")
README, INTEGRATE, OPERATE = ((CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
((_, WHAT_IF),) = [entry for entry in BLOCK.findall(OPERATE) if "./run whatif" in entry[1]]
END_MARK = "--- end of the command, status "
COMMAND_TIMEOUT_SECONDS = 120.0
NOT_TYPED = ("./run demo", "./run up", "./run bench")
"""Commands of README's table that run already, or for many minutes."""
PSQL = """#!{python}
import sys, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    cursor = connection.execute(sys.stdin.read())
    while True:
        print(*(cursor.fetchall() if cursor.description else ()), sep="\\n")
        if not cursor.nextset():
            break
"""


def _enable_interrupts() -> None:
    """A test run in the background ignores Ctrl-C, and its children would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """One bash in the checkout, so that what is exported or evaluated stays."""

    def __init__(self, checkout: Path, environment: dict[str, str], scripts: Path) -> None:
        self._script = scripts
        self._bash = subprocess.Popen(
            ["bash", "--norc"],
            cwd=checkout,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, text: str) -> tuple[str, int]:
        """Type lines; return what is read and the exit status of the last one."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._script.write_text(text + "\n", encoding="utf-8")
        self._bash.stdin.write(f". '{self._script}' </dev/null; printf '\\n{END_MARK}%s\\n' $?\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        while not (line := self._bash.stdout.readline()).startswith(END_MARK):
            assert line, f"the terminal was closed: {''.join(lines)}"
            lines.append(line)
        return "".join(lines), int(line.removeprefix(END_MARK))

    def read(self, text: str) -> str:
        output, status = self.type(text)
        assert status == 0, f"$ {text}\n{output}"
        return output

    def read_until_it_works(self, text: str, expected: str = "") -> str:
        """Type it again until the answer is there: a command is executed a moment after it was sent."""
        end = time.monotonic() + COMMAND_TIMEOUT_SECONDS
        while True:
            output, status = self.type(text)
            if status == 0 and expected in output:
                return output
            assert time.monotonic() < end, f"$ {text}\n{output}"

    def close(self) -> None:
        if self._bash.poll() is None:
            self._bash.communicate("exit\n", timeout=30)


class Machine:
    """A clone, a home without files, and the programs that the pages ask for."""

    def __init__(self, folder: Path) -> None:
        self.checkout, self.folder = folder / "unwind", folder
        self._closing = contextlib.ExitStack()
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
        for name in filter(lambda name: (CHECKOUT / name).is_file(), listed.stdout.splitlines()):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, self.checkout / name)
        for name in ("bin", "home", "tmp"):
            (folder / name).mkdir()
        psql = folder / "bin" / "psql"
        psql.write_text(PSQL.format(python=sys.executable))
        psql.chmod(0o755)
        self.environment = {
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "LANG": "C.UTF-8",
            "UNWIND_VENV": sys.prefix,  # a minute less
            "NEWCOMERS_MACHINE": str(folder),
        }

    def open_terminal(self, name: str) -> Terminal:
        terminal = Terminal(self.checkout, self.environment, self.folder / name)
        self._closing.callback(terminal.close)
        return terminal

    def start_demo(self, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            words = ["./run", "demo"]
            demo = subprocess.Popen(
                words,
                cwd=self.checkout,
                env=self.environment,
                stdout=output,
                stderr=output,
                preexec_fn=_enable_interrupts,  # noqa: PLW1509 - this process has no threads here
            )
        self._closing.callback(demo.wait)
        return demo

    def close(self) -> None:
        """End the terminals, and kill what is left of a test that failed."""
        for process in self.processes():
            if process.name() != "bash":
                process.kill()
        self._closing.close()

    def processes(self) -> list[psutil.Process]:
        running = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("NEWCOMERS_MACHINE") == str(self.folder)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    running.append(process)
            except psutil.Error:
                continue
        return running


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.close()


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(540)
def test_everything_that_the_pages_say_can_be_typed_and_answers_what_they_say(machine: Machine) -> None:
    log = machine.folder / "demo.log"
    demo = machine.start_demo(log)
    suggestions = _read_demo(demo, log)
    first = machine.open_terminal("first")
    possible_from = _try_own_alert(first)
    _try_table(first)
    for suggestion in suggestions:
        first.read(suggestion)

    second = machine.open_terminal("second")
    assert "Ready after" in second.read("./run up --detach")
    try:
        assert re.search(r"\d\d checks: nothing is wrong\.", second.read("./run doctor"))
        _follow_integrate(second)
    finally:
        second.read("unset DATABASE_URL CELERY_BROKER_URL CELERY_RESULT_BACKEND; ./run down")

    wait_until(lambda: datetime.now(UTC) > possible_from, COMMAND_TIMEOUT_SECONDS)  # noqa: TID251 - README's wait
    cancel = first.read("./run send orders.cancel order_id=1 member_id=s-north")
    assert '"outcome": "done"' in cancel
    assert "Order 1 is cancelled, on the ground of the non-paying buyer alert." in first.read("./run explain order 1")
    first.close()
    second.close()
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 0
    assert "The demo has ended" in log.read_text()
    assert machine.processes() == []


def _read_demo(demo: subprocess.Popen[bytes], log: Path) -> list[str]:
    """Wait until the demo keeps running; return the commands that it suggests."""
    wait_until(lambda: "Ctrl-C ends the demo" in log.read_text() or demo.poll() is not None, COMMAND_TIMEOUT_SECONDS)
    text = log.read_text()
    assert demo.poll() is None, text
    for expected in ("Flower ", "unlocked", "cancelled", "fees credited on the next bill", "carried out"):
        assert expected in text, expected
    suggestions = re.findall(r"^  ((?:\./run|export) .*)$", text, re.MULTILINE)
    assert len(suggestions) == 4
    return suggestions


def _try_own_alert(terminal: Terminal) -> datetime:
    """Type README's block about an alert of one's own; return from when on the order can be cancelled."""
    ((_, block),) = [entry for entry in BLOCK.findall(README) if "UNWIND_DATA" in entry[1]]
    output = terminal.read(block)
    assert re.findall(r'"outcome": "(\w+)"', output) == ["done", "done", "done", "refused"], output
    assert "so order 1 can be cancelled from" in " ".join(output.split())
    assert "Order 1 is NPB." in output
    (possible_from,) = re.findall(r'"possible_from": "(.+)"', output)
    return parse_timestamp(possible_from)


def test_readme_has_no_block_that_nobody_types() -> None:
    """`./run demo` is typed here, `--once` in tests/workers/simulation/test_demo.py, and `./run test` is this run."""
    assert [text for language, text in BLOCK.findall(README) if "UNWIND_DATA" not in text] == [
        "$ ./run demo --once\n",
        "$ ./run test\n",
    ]


def _try_table(terminal: Terminal) -> None:
    rows = re.findall(r"^\|.*\|$", README.partition("## What you can do with it")[2], re.MULTILINE)
    commands = [command for row in rows for command in re.findall(r"`(\./run [^`]+)`", row)]
    commands = [c for c in commands if not c.startswith(NOT_TYPED) and c != "./run down"]
    typed = {"explain", "show", "credits", "forecast", "send", "replay", "whatif"}
    assert {command.split()[1] for command in commands} == typed
    for command in commands:
        output, status = terminal.type(WHAT_IF if command == "./run whatif TERMS.toml" else command)
        refused = command.startswith("./run send") and '"outcome": "refused"' in output
        assert status == 0 or refused, f"$ {command}\n{output}"
        assert max(len(line) for line in output.splitlines()) <= 80 or "send" in command, output


def _follow_integrate(terminal: Terminal) -> None:
    assert '`./run up --detach` starts one, and `eval "$(./run env)"`' in INTEGRATE
    terminal.read('eval "$(./run env)"')
    typed = 0
    for language, text in BLOCK.findall(INTEGRATE):
        if language in ("json", "redis") or "CREATE ROLE" in text:
            continue
        typed += 1
        if language == "python":
            output = terminal.read(f"python <<'END'\n{text}END")
            assert "refused" not in output, output
            if "print(answer" in text:
                assert output.strip().startswith(("done", "members.record done")), output
        elif language == "sql":
            expected = "'done'" if "command_answers" in text else ""
            terminal.read_until_it_works(f"psql \"$DATABASE_URL\" <<'END'\n{text}END", expected)
        elif "show request" in text:
            assert "npb.file, answered" in terminal.read_until_it_works(text)
        else:
            terminal.read(text)
    assert typed > 12, "the page lost its snippets"
