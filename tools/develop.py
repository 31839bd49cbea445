"""The development commands: `test`, `bench`, `torture` and `check`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import click

from workers.settings import CHECKOUT

LAYERS = ("workers", "schedules", "tasks", "models", "policies")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--all", "run_all", is_flag=True, help="Include the long tests.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def test(run_all: bool, words: tuple[str, ...]) -> None:
    """Run the test suite on its own servers. Extra WORDS are passed to pytest."""
    run_all = run_all or "--all" in words  # click does not parse options after the first word
    words = tuple(word for word in words if word != "--all")
    os.chdir(CHECKOUT)
    selection = [] if run_all else ["-m", "not long"]
    # A whole run uses every core, one process per file because fixtures may be expensive; selected tests start sooner
    # in one process, where a debugger works too.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    spread = ["-n", str(min(cores, 8)), "--dist", "loadfile"] if not words and cores > 1 else []
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *selection, *spread, *words])  # noqa: S606 - no shell


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def bench(words: tuple[str, ...]) -> None:
    """Measure speed against the references: NAME…, --quick, --full; see --help."""
    os.chdir(CHECKOUT)
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *words])  # noqa: S606 - no shell


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def torture(words: tuple[str, ...]) -> None:
    """Inject faults into an installation of its own: --minutes N, --seed S, --report FILE, --mutants; see --help."""
    os.chdir(CHECKOUT)
    os.execv(sys.executable, [sys.executable, "-m", "stress", *words])  # noqa: S606 - no shell


@click.command()
@click.option("--fix", is_flag=True, help="Let ruff fix what it can first.")
def check(fix: bool) -> None:
    """Check format, lint, types and import contracts. Needs no servers."""
    scripts = Path(sys.executable).parent
    python = [sys.executable, "-m"]
    if fix:
        _run([*python, "ruff", "check", "--fix", "--quiet", "."])
        _run([*python, "ruff", "format", "--quiet", "."])
    paths = [
        name
        for name in (*LAYERS, "tools", "stress", "tests", "benchmarks", "flowerconfig.py", "run")
        if (CHECKOUT / name).exists()
    ]
    failed = [
        name
        for name, command in (
            ("format", [*python, "ruff", "format", "--check", "."]),
            ("lint", [*python, "ruff", "check", "."]),
            ("imports", [str(scripts / "lint-imports")]),
            ("types", [*python, "mypy", *paths]),
        )
        if not _passes(name, command)
    ]
    if failed:
        raise click.ClickException(f"Not clean: {', '.join(failed)}.")
    click.echo("All clean.")


def _passes(name: str, command: list[str]) -> bool:
    began = time.monotonic()
    done = _run(command)
    status = click.style("ok", fg="green") if done.returncode == 0 else click.style("failed", fg="red")
    click.echo(f"  {name:<8} {status}  ({time.monotonic() - began:.1f} s)")
    if done.returncode != 0:
        click.echo(done.stdout.decode(errors="replace"))
    return done.returncode == 0


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
