"""The `check` command: format, lint, dead code, types, import contracts, and the checks of `tools.checks`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import click

from tools.checks import CHECKS
from workers.settings import CHECKOUT

PYTHON = (sys.executable, "-m")
TYPED = (
    "workers",
    "web",
    "schedules",
    "tasks",
    "models",
    "policies",
    "tools",
    "stress",
    "tests",
    "benchmarks",
    "flowerconfig.py",
    "run",
)
PROGRAMS: dict[str, tuple[str, ...]] = {
    "format": (*PYTHON, "ruff", "format", "--check", "."),
    "lint": (*PYTHON, "ruff", "check", "."),
    "dead code": (*PYTHON, "vulture"),
    "imports": (str(Path(sys.executable).parent / "lint-imports"),),
    "types": (*PYTHON, "mypy", *(name for name in TYPED if (CHECKOUT / name).exists())),
}


@click.command()
@click.option("--fix", is_flag=True, help="Let ruff fix what it can first.")
def check(fix: bool) -> None:
    """Check format, lint, dead code, types, import contracts, and the repository's own rules. Needs no servers."""
    if fix:
        _run((*PYTHON, "ruff", "check", "--fix", "--quiet", "."))
        _run((*PYTHON, "ruff", "format", "--quiet", "."))
    with ThreadPoolExecutor() as pool:  # the programs use the other cores while the checks run here
        programs = {name: pool.submit(_timed, partial(_run, command)) for name, command in PROGRAMS.items()}
        results = {name: _timed(find_problems) for name, find_problems in CHECKS.items()}
        results = {name: future.result() for name, future in programs.items()} | results
    for name, (seconds, problems) in results.items():
        status = click.style("failed", fg="red") if problems else click.style("ok", fg="green")
        click.echo(f"  {name:<10} {status}  ({seconds:.1f} s)")
        for problem in problems:
            click.echo(problem)
    if failed := [name for name, (_, problems) in results.items() if problems]:
        raise click.ClickException(f"Not clean: {', '.join(failed)}.")
    click.echo("All clean.")


def _timed(find_problems: Callable[[], list[str]]) -> tuple[float, list[str]]:
    began = time.monotonic()
    problems = find_problems()
    return time.monotonic() - began, problems


def _run(command: tuple[str, ...]) -> list[str]:
    """The output of a program that fails; nothing of one that succeeds."""
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return [done.stdout.decode(errors="replace")] if done.returncode else []
