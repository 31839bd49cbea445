"""The development commands: `test`, `bench` and `torture`."""

from __future__ import annotations

import os
import sys

import click

from workers.settings import CHECKOUT


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--all", "run_all", is_flag=True, help="Include the long tests.")
@click.option("--long", "run_long", is_flag=True, help="Only the long tests.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def test(run_all: bool, run_long: bool, words: tuple[str, ...]) -> None:
    """Run the test suite on its own servers. Extra WORDS are passed to pytest."""
    run_all = run_all or "--all" in words  # click does not parse options after the first word
    words = tuple(word for word in words if word != "--all")
    os.chdir(CHECKOUT)
    selection = ["-m", "long"] if run_long else [] if run_all else ["-m", "not long"]
    # The tests often wait, so more processes than cores keep the cores busy: two more, or one with the long tests, of
    # which many measure. Files are not divided, because fixtures may be expensive; tests/conftest.py sorts the longest
    # first. Selected tests start sooner in one process, where a debugger works too.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = str(min(cores + (1 if run_all or run_long else 2), 8))
    spread = ["-n", processes, "--dist", "loadfile", "--no-loadscope-reorder"] if not words else []
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
