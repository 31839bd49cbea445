"""How does one find out whether the code is right?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click

from workers.settings import CHECKOUT

FLOORS = ("workers", "schedules", "tasks", "models", "policies")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--all", "everything", is_flag=True, help="Also the long ones.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def test(everything: bool, words: tuple[str, ...]) -> None:
    """Run the test suite on servers of its own. Extra WORDS go to pytest."""
    everything = everything or "--all" in words  # after a word for pytest click no longer looks for it
    words = tuple(word for word in words if word != "--all")
    os.chdir(CHECKOUT)
    selection = [] if everything else ["-m", "not long"]
    # A whole run uses the cores there are, a file staying in one process because its fixtures may be dear; a chosen few
    # tests start sooner in one process, where a debugger works too.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spread = ["-n", str(min(cores, 8)), "--dist", "loadfile"] if not words and cores > 1 else []
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *selection, *spread, *words])  # noqa: S606 - no shell wanted


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def bench(words: tuple[str, ...]) -> None:
    """Measure speed against the references. `--help` tells all: NAME…, --quick, --full."""
    os.chdir(CHECKOUT)
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *words])  # noqa: S606 - no shell wanted


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def torture(words: tuple[str, ...]) -> None:
    """Torment an installation of its own. `--help` tells all: --minutes N, --seed S, --report FILE, --mutants."""
    os.chdir(CHECKOUT)
    os.execv(sys.executable, [sys.executable, "-m", "stress", *words])  # noqa: S606 - no shell wanted


@click.command()
@click.option("--fix", is_flag=True, help="Let ruff repair what it can before looking.")
def check(fix: bool) -> None:
    """Check format, lint, types and import contracts. Needs no servers."""
    scripts = Path(sys.executable).parent
    python = [sys.executable, "-m"]
    if fix:
        _call([*python, "ruff", "check", "--fix", "--quiet", "."])
        _call([*python, "ruff", "format", "--quiet", "."])
    typed = [
        name
        for name in (*FLOORS, "tools", "stress", "tests", "benchmarks", "flowerconfig.py", "run")
        if (CHECKOUT / name).exists()
    ]
    failed = [
        name
        for name, command in (
            ("format", [*python, "ruff", "format", "--check", "."]),
            ("lint", [*python, "ruff", "check", "."]),
            ("imports", [str(scripts / "lint-imports")]),
            ("types", [*python, "mypy", *typed]),
        )
        if not _passes(name, command)
    ]
    if failed:
        raise click.ClickException(f"Not clean: {', '.join(failed)}.")
    click.echo("All clean.")


def _passes(name: str, command: list[str]) -> bool:
    """Run one check, print its line, and what it said when it found something."""
    began = time.monotonic()
    done = _call(command)
    word = click.style("ok", fg="green") if done.returncode == 0 else click.style("failed", fg="red")
    click.echo(f"  {name:<8} {word}  ({time.monotonic() - began:.1f} s)")
    if done.returncode != 0:
        click.echo(done.stdout.decode(errors="replace"))
    return done.returncode == 0


def _call(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
