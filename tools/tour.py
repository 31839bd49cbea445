"""Recorder of the README's terminal tour and screenshots, as SVG, from a real run.

`./run tour` plays the demo on a pseudo terminal, types a few of README's commands beside it, and writes what the
terminal showed to `docs/img/`. Nothing but a browser is needed to view it.
"""

from __future__ import annotations

import codecs
import fcntl
import html
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from workers.settings import CHECKOUT

IMAGES = CHECKOUT / "docs" / "img"
COLUMNS, ROWS = 80, 32
CELL_WIDTH, LINE_HEIGHT, MARGIN, TITLE_HEIGHT = 8.4, 18, 12, 28
FRAME_SECONDS = 0.8
"""The least time between two frames; what the terminal showed for less is not in the tour."""
SETTLED_SECONDS = 0.05
"""A frame is what the terminal shows once nothing was written for this long."""
TYPING_SECONDS, READING_SECONDS = 1.2, 5.0
MAX_PAUSE = 1.6
"""Longer pauses, such as the start of the servers, are cut to this."""
DEMO_TIMEOUT = 180.0
_WORDS = re.compile(r"\S+(?: \S+)*")
_CONTROL = re.compile(r"\x1b\[\?25[lh]|\x1b\[(\d*)([AKG])|\r|\n|\x1b\]8;[^\x07\x1b]*(?:\x1b\\|\x07)")


@dataclass
class Screen:
    """What a terminal shows of the output of Rich, which moves up and erases whole lines, and nothing else."""

    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0

    def feed(self, output: str) -> None:
        position = 0
        for match in _CONTROL.finditer(output):
            self._append(output[position : match.start()])
            position = match.end()
            if match[0] == "\n":
                self.row += 1
                if self.row == len(self.lines):
                    self.lines.append("")
            elif match[2] == "A":
                self.row = max(self.row - int(match[1] or 1), 0)
            elif match[2] == "K":
                self.lines[self.row] = ""
        self._append(output[position:])

    def _append(self, text: str) -> None:
        self.lines[self.row] += text


class PseudoTerminal:
    """A program on a terminal of its own."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            words, cwd=CHECKOUT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def read(self, timeout: float | None = None) -> str | None:
        """Return what was written since, empty after the timeout; None at the end of the program."""
        if not select.select([self._ours], [], [], timeout)[0]:
            return ""
        try:
            output = os.read(self._ours, 65536)
        except OSError:
            return None
        return self._decoder.decode(output).replace("\r\n", "\n") if output else None


Frame = tuple[float, tuple[str, ...]]
"""Seconds for which the lines are shown, and the lines with their escape sequences."""


class Recorder:
    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.screen = Screen()

    def type(self, command: str) -> None:
        self.screen = Screen()
        self._add(FRAME_SECONDS)
        self.screen.feed(f"\x1b[1;32m$\x1b[0m {command}\n")
        self._add(TYPING_SECONDS)

    def run(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Record the first screen of what a command prints."""
        terminal = PseudoTerminal(words, environment)
        while (output := terminal.read()) is not None:
            self.screen.feed(output)
        terminal.process.wait()
        self._add(READING_SECONDS, tuple(self.screen.lines[:ROWS]))

    def follow(self, words: Sequence[str], environment: Mapping[str, str], last: str) -> subprocess.Popen[bytes]:
        """Record a program frame by frame until it prints `last`; it keeps running."""
        terminal = PseudoTerminal(words, environment)
        seen, shown_at, end = "", time.monotonic(), time.monotonic() + DEMO_TIMEOUT
        while last not in seen:
            output = terminal.read(SETTLED_SECONDS)
            if output is None or time.monotonic() > end:
                raise click.ClickException(f"The demo did not come to its end: {seen[-2000:]}")
            seen += output
            self.screen.feed(output)
            if not output and (passed := time.monotonic() - shown_at) >= FRAME_SECONDS:
                self._add(min(passed, MAX_PAUSE))
                shown_at = time.monotonic()
        self._add(READING_SECONDS)
        return terminal.process

    def _add(self, seconds: float, lines: tuple[str, ...] | None = None) -> None:
        lines = lines or tuple(self.screen.lines[-ROWS:])
        if self.frames and self.frames[-1][1] == lines:
            self.frames[-1] = (min(self.frames[-1][0] + seconds, max(MAX_PAUSE, seconds)), lines)
        else:
            self.frames.append((seconds, lines))


@click.command()
def tour() -> None:
    """Record the terminal tour and the screenshots of the README from a real run of the demo."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="unwind-tour-") as folder:
        environment = os.environ | {"UNWIND_DATA": folder, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        recorder.type("./run demo")
        demo = recorder.follow(_workers("demo"), environment, "Ctrl-C ends the demo")
        try:
            board = max((lines for _, lines in recorder.frames), key=_count_credits)
            environment["UNWIND_DATA"] = str(next(Path(folder).glob("demo-*")))
            orders = re.findall(r"\./run (show|explain) order (\d+)", "\n".join(recorder.screen.lines))
            pages = {"demo": board}
            for noun, order_id in reversed(orders):
                words = (noun, "order", order_id)
                recorder.type(f"./run {' '.join(words)}")
                recorder.run(_workers(*words), environment)
                pages[noun] = tuple(recorder.screen.lines[:ROWS])
        finally:
            demo.send_signal(signal.SIGINT)
            demo.wait(60)
    images = {name: render_screenshot(lines) for name, lines in pages.items()}
    for name, svg in (images | {"tour": render_animation(recorder.frames)}).items():
        path = IMAGES / f"terminal-{name}.svg"
        path.write_text(svg, encoding="utf-8")
        click.echo(f"Written: {path.relative_to(CHECKOUT)} ({len(svg) / 1000:.0f} kB)")


def render_screenshot(lines: Sequence[str]) -> str:
    rows = [_render_line(line, number) for number, line in enumerate(lines)]
    return _render_document("\n".join(rows), max(len(lines), 1))


def render_animation(frames: Sequence[Frame]) -> str:
    """Render frames as one SVG that shows them in a loop; each distinct line is in it once."""
    total = sum(seconds for seconds, _ in frames)
    ids = {line: f"l{number}" for number, line in enumerate(dict.fromkeys(line for _, f in frames for line in f))}
    definitions = [f'<g id="{name}">{_render_line(line, 0)}</g>' for line, name in ids.items()]
    rules, groups, begin = [], [], 0.0
    for number, (seconds, lines) in enumerate(frames):
        start, end = begin / total * 100, (begin + seconds) / total * 100
        rules.append(
            f"@keyframes f{number}{{0%{{visibility:{'visible' if number == 0 else 'hidden'}}}"
            f"{start:.3f}%{{visibility:visible}}{end:.3f}%{{visibility:hidden}}100%{{visibility:hidden}}}}"
            f"#f{number}{{animation:f{number} {total:.1f}s step-end infinite}}"
        )
        uses = "".join(f'<use href="#{ids[line]}" y="{row * LINE_HEIGHT}"/>' for row, line in enumerate(lines))
        groups.append(f'<g id="f{number}" visibility="hidden">{uses}</g>')
        begin += seconds
    style = f"<style>{''.join(rules)}</style>"
    return _render_document("\n".join([style, "<defs>", *definitions, "</defs>", *groups]), ROWS)


def _render_document(content: str, rows: int) -> str:
    width = COLUMNS * CELL_WIDTH + 2 * MARGIN
    height = rows * LINE_HEIGHT + TITLE_HEIGHT + MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * n}" cy="14" r="5" fill="{colour}"/>'
        for n, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,monospace" font-size="14">\n'
        f'<rect width="100%" height="100%" rx="8" fill="{MONOKAI.background_color.hex}"/>{dots}\n'
        f'<g transform="translate({MARGIN} {TITLE_HEIGHT})" fill="{MONOKAI.foreground_color.hex}">\n'
        f"{content}\n</g>\n</svg>\n"
    )


def _render_line(line: str, row: int) -> str:
    console = Console(width=COLUMNS, color_system="truecolor", force_terminal=True)
    column, parts = 0, []
    for segment in Text.from_ansi(line).render(console):
        for words in _WORDS.finditer(segment.text):
            style = segment.style
            colour = style.color.get_truecolor(MONOKAI).hex if style and style.color else ""
            attributes = f' fill="{colour}"' if colour else ""
            attributes += ' font-weight="bold"' if style and style.bold else ""
            attributes += ' opacity="0.6"' if style and style.dim else ""
            place = f'x="{(column + words.start()) * CELL_WIDTH:.1f}" y="{row * LINE_HEIGHT + 14}"'
            parts.append(
                f'<text {place} textLength="{len(words[0]) * CELL_WIDTH:.1f}"{attributes}>'
                f"{html.escape(words[0], quote=False)}</text>"
            )
        column += len(segment.text)
    return "".join(parts)


def _count_credits(lines: Sequence[str]) -> int:
    return "\n".join(lines).count(" USD credited")


def _workers(*words: str) -> list[str]:
    return [sys.executable, "-m", "workers", *words]
