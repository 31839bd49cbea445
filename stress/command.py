"""The `./run torture` command: prints the seed, then progress, then the figures."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from stress.mutant_table import run_mutants
from stress.report import keep_failure, report
from stress.run import Outcome, RunOptions, prepare_run

SET_UP, LAST_ROUND = 10, 20
"""Seconds that a run takes beside the minutes asked for, about."""
LARGE_WAVE = 250
"""So that half an hour on two cores carries tens of thousands of commands, whatever is killed meanwhile."""
FIGURES = (
    ("commands", "commands sent, each with a request id of its own"),
    ("accepted", "of these with a kept answer in the database"),
    ("orders_cancelled", "orders cancelled"),
    ("orders_cancelled_automatically", "of these by automation"),
    ("alerts_filed_automatically", "alerts filed by automation"),
    ("requests_declined_automatically", "requests declined by automation"),
    ("worker_kills", "whole workers killed (-9)"),
    ("child_kills", "worker children killed (-9)"),
    ("web_kills", "HTTP processes killed (-9)"),
    ("pauses", "workers paused beyond the visibility timeout"),
    ("restarts", "programs started again"),
    ("broker_losses", "times the broker died or forgot all"),
    ("failovers", "failovers of the broker (with --sentinel)"),
    ("lost_tail_bytes", "bytes of its replication stream that they lost"),
    ("storms", "connection storms"),
    ("database_kills", "times the database died"),
    ("redeliveries", "copies and repeats sent"),
    ("duplicates_suppressed", "of these answered again and not done again"),
    ("publishes_per_outbox_message", "publishes per outbox message"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("early", "early"),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(0.1, 24 * 60), default=2.0, show_default=True, help="About how long.")
@click.option("--seed", type=int, help="What is done and when is a function of it; a new one each time unless given.")
@click.option("--fierce", type=click.FloatRange(1, 5), default=1.0, show_default=True,
              help="So many times the usual kills, losses and storms.")  # fmt: skip
@click.option(
    "--sentinel", is_flag=True, help="The broker is two servers under Sentinel and fails over, losing its tail."
)
@click.option(
    "--report", "report_to", type=click.Path(path_type=Path, dir_okay=False), help="Also write the figures as JSON."
)
@click.option("--mutants", is_flag=True, help="See instead that each of the seeded mistakes is caught, by name.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), default=Path("torture-failures"),
              show_default=True, help="Folder for the history of a run that failed.")  # fmt: skip
def torture(
    minutes: float, seed: int | None, fierce: float, sentinel: bool, report_to: Path | None, mutants: bool, keep: Path
) -> None:
    """Inject faults into an installation of its own, and check that nothing is lost, doubled or early.

    Real PostgreSQL, Valkey, three worker groups, two beats, an HTTP process and a mail server, in a temporary
    folder. Callers send commands by message, by SQL and by HTTP.
    Exit code 0: no violation.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    if mutants:
        sys.exit(0 if run_mutants(console) else 1)
    seed = secrets.randbelow(10**9) if seed is None else seed
    options = RunOptions(seed, minutes * 60, fierce=fierce, sentinel=sentinel, wave=LARGE_WAVE)
    console.print(f"[bold]seed {seed}[/]  (the same plan again: {_again(options)})")
    console.print(
        f"  about {(options.seconds + SET_UP + LAST_ROUND) / 60:.1f} minutes, in rounds of {options.round:.0f} s"
    )
    with _folder() as folder, _live_display(console) as say, prepare_run(folder, options, say) as (run, history):
        try:
            outcome = run.go()
        except KeyboardInterrupt:
            console.print("\nInterrupted: nothing of it is left, and nothing was found until then.")
            sys.exit(130)
    figures = report(outcome)
    console.print(_table(figures))
    if report_to is not None:
        report_to.parent.mkdir(parents=True, exist_ok=True)
        report_to.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if outcome.violations:
        _tell_failure(console, outcome, history, keep)
        sys.exit(1)
    console.print("[bold green]Nothing was violated.[/]")


def _again(options: RunOptions) -> str:
    fierce = f" --fierce {options.fierce:g}" if options.fierce != 1 else ""
    sentinel = " --sentinel" if options.sentinel else ""
    return f"./run torture --seed {options.seed} --minutes {options.seconds / 60:g}{fierce}{sentinel}"


def _tell_failure(console: Console, outcome: Outcome, history: list[dict[str, Any]], keep: Path) -> None:
    console.print(f"[bold red]{len(outcome.violations)} violations:[/]")
    for sentence in outcome.violations[:20]:
        console.print(f"  {sentence}", markup=False)
    for path in keep_failure(outcome, history, keep):
        console.print(f"  kept: {path}", markup=False)
    console.print(f"Again: {_again(outcome.options)}")
    console.print(f"Its history alone: ./run replay --allow-short {keep}/torture-{outcome.options.seed}.jsonl")


def _table(figures: dict[str, Any]) -> Table:
    table = Table(
        show_header=False, title=f"{figures['seconds']:.0f} s, {figures['rounds']} rounds", title_style="bold"
    )
    for name, label in FIGURES:
        table.add_row(label, str(figures[name]))
    longest = figures["dry_after"]["longest"]
    table.add_row("all done after the last fault, at the latest", "never" if longest is None else f"{longest:.1f} s")
    table.add_row("violations", str(len(figures["violations"])))
    return table


@contextlib.contextmanager
def _live_display(console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    if not console.is_terminal:
        last_output = [0.0]

        def say(now: dict[str, Any]) -> None:
            if now["seconds"] - last_output[0] >= 30:
                last_output[0] = now["seconds"]
                console.print(
                    f"  {now['seconds']:4.0f} s  {now['commands']} commands, {sum(now['faults'].values())} faults, "
                    f"{now['rounds']} rounds compared, {now['violations']} violations"
                )

        yield say
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda now: live.update(_progress_table(now))


def _progress_table(now: dict[str, Any]) -> Table:
    table = Table(show_header=False, title=f"{now['seconds']:.0f} s: {now['phase']}", title_style="bold", min_width=50)
    for label, value in (
        ("commands sent", now["commands"]),
        ("waiting for an answer", now["outstanding"]),
        ("rounds compared", now["rounds"]),
        ("programs started again", now["revived"]),
        ("violations", now["violations"]),
        *sorted((kind.replace("_", " "), times) for kind, times in now["faults"].items()),
    ):
        table.add_row(label, str(value))
    return table


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="unwind-torture-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
