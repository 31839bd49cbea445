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

from policies.texts import pluralize
from stress.mutant_table import run_mutants
from stress.report import keep_failure, report
from stress.run import Outcome, RunOptions, prepare_run

SET_UP, LAST_ROUND = 10, 20
"""Approximate seconds that a run takes beyond the requested minutes."""
LARGE_WAVE = 250
"""Orders per bulk wave: half an hour on two cores carries tens of thousands of commands despite the kills."""
FIGURES = (
    ("commands", "commands sent, each with its own request id"),
    ("accepted", "of these with a stored answer"),
    ("orders_cancelled", "orders cancelled"),
    ("orders_cancelled_automatically", "of these by automation"),
    ("alerts_filed_automatically", "alerts filed by automation"),
    ("requests_declined_automatically", "requests declined by automation"),
    ("worker_kills", "whole workers killed (-9)"),
    ("child_kills", "worker children killed (-9)"),
    ("web_kills", "HTTP processes killed (-9)"),
    ("pauses", "workers paused beyond the visibility timeout"),
    ("restarts", "programs restarted"),
    ("broker_losses", "times the broker died or lost all data"),
    ("failovers", "failovers of the broker (with --sentinel)"),
    ("lost_tail_bytes", "bytes of its replication stream lost in failovers"),
    ("storms", "connection storms"),
    ("database_kills", "times the database died"),
    ("redeliveries", "copies and repeats sent"),
    ("duplicates_suppressed", "of these answered again without a second effect"),
    ("publishes_per_outbox_message", "publishes per outbox message"),
    ("lost", "lost"),
    ("doubled", "doubled"),
    ("early", "early"),
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--minutes", type=click.FloatRange(0.1, 24 * 60), default=2.0, show_default=True, help="Approximate duration."
)
@click.option("--seed", type=int, help="The seed of the plan; random unless given.")
@click.option("--intensity", type=click.FloatRange(1, 5), default=1.0, show_default=True,
              help="Multiply the usual kills, losses and storms by this.")  # fmt: skip
@click.option(
    "--sentinel",
    is_flag=True,
    help="The broker is two servers under Sentinel; it fails over and loses its last messages.",
)
@click.option(
    "--report", "report_to", type=click.Path(path_type=Path, dir_okay=False), help="Also write the figures as JSON."
)
@click.option("--mutants", is_flag=True, help="Instead, introduce the bugs one by one and check that each is detected.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), default=Path("torture-failures"),
              show_default=True, help="Folder for the history of a run that failed.")  # fmt: skip
def torture(
    minutes: float,
    seed: int | None,
    intensity: float,
    sentinel: bool,
    report_to: Path | None,
    mutants: bool,
    keep: Path,
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
    options = RunOptions(seed, minutes * 60, intensity=intensity, sentinel=sentinel, wave=LARGE_WAVE)
    console.print(f"[bold]seed {seed}[/]  (repeat this plan: {_repeat_command(options)})")
    console.print(
        f"  about {(options.seconds + SET_UP + LAST_ROUND) / 60:.1f} minutes, in rounds of {options.round:.0f} s"
    )
    with _folder() as folder, _live_display(console) as say, prepare_run(folder, options, say) as (run, history):
        try:
            outcome = run.go()
        except KeyboardInterrupt:
            console.print("\nInterrupted: everything was removed; no violation was found so far.")
            sys.exit(130)
    figures = report(outcome)
    console.print(_table(figures))
    if report_to is not None:
        report_to.parent.mkdir(parents=True, exist_ok=True)
        report_to.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if outcome.violations:
        _print_failure(console, outcome, history, keep)
        sys.exit(1)
    console.print("[bold green]No violations.[/]")


def _repeat_command(options: RunOptions) -> str:
    intensity = f" --intensity {options.intensity:g}" if options.intensity != 1 else ""
    sentinel = " --sentinel" if options.sentinel else ""
    return f"./run torture --seed {options.seed} --minutes {options.seconds / 60:g}{intensity}{sentinel}"


def _print_failure(console: Console, outcome: Outcome, history: list[dict[str, Any]], keep: Path) -> None:
    console.print(f"[bold red]{pluralize(len(outcome.violations), 'violation', 'violations')}:[/]")
    for sentence in outcome.violations[:20]:
        console.print(f"  {sentence}", markup=False)
    for path in keep_failure(outcome, history, keep):
        console.print(f"  saved: {path}", markup=False)
    console.print(f"Repeat: {_repeat_command(outcome.options)}")
    console.print(f"Replay only its history: ./run replay --allow-short {keep}/torture-{outcome.options.seed}.jsonl")


def _table(figures: dict[str, Any]) -> Table:
    table = Table(
        show_header=False, title=f"{figures['seconds']:.0f} s, {figures['rounds']} rounds", title_style="bold"
    )
    for name, label in FIGURES:
        table.add_row(label, str(figures[name]))
    longest = figures["seconds_to_idle"]["longest"]
    table.add_row(
        "longest time from the last fault until all work was done", "never" if longest is None else f"{longest:.1f} s"
    )
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
        ("programs restarted", now["restarts"]),
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
