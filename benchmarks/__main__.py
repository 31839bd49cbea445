"""The `./run bench` command: runs the benchmarks, prints a table, stores the results and draws the charts.

Exits with 0 when every bar is met.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import charts, report
from benchmarks.environment import Environment, running_environment
from benchmarks.harness import SCALES, Bench, Result, Scale, WorkMismatch
from tools.speed_page import speed_page
from workers.local.supervisor import ProgramFailed
from workers.settings import CHECKOUT

RESULTS = Path(__file__).parent / "results"


def benches() -> dict[str, Bench]:
    files = sorted(path.stem for path in Path(__file__).parent.glob("b[0-9][0-9]_*.py"))
    modules: list[Bench] = [importlib.import_module(f"benchmarks.{name}").BENCH for name in files]
    return {bench.name: bench for bench in modules}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option(
    "--quick", "scale", flag_value="quick", help="A small version: shows that everything works, judges nothing."
)
@click.option(
    "--full", "scale", flag_value="full", help="With the largest tables (5 million alerts, 2 million orders)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of a table.")
@click.option(
    "--keep/--no-keep", default=None, help="Write the results into benchmarks/results/ (default: whole runs only)."
)
def main(names: tuple[str, ...], scale: str | None, as_json: bool, keep: bool | None) -> None:
    """Measure Unwind against the references, alternating, on servers of this run's own.

    NAME… are benchmarks such as B1 B4; the default is all of them.  Exits with 0 when every bar is met.
    """
    known = benches()
    chosen = [name.upper() for name in names] or list(known)
    if unknown := [name for name in chosen if name not in known]:
        raise click.UsageError(f"There is no measure {', '.join(unknown)}. There are {', '.join(known)}.")
    size = SCALES[scale or "normal"]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(stderr=True, highlight=False)
    minutes = sum(known[name].seconds.get(size.name, known[name].seconds["normal"]) for name in chosen) / 60
    console.print(
        f"Measuring {', '.join(chosen)}: about {max(minutes, 0.1):.1f} minutes on two idle cores. Ctrl-C leaves "
        "nothing."
    )
    began = time.monotonic()
    try:
        with running_environment() as environment:
            results = _measure(environment, [known[name] for name in chosen], size, console)
    except (ProgramFailed, WorkMismatch, TimeoutError) as problem:
        raise click.ClickException(f"The run ends here: {problem}") from None
    except KeyboardInterrupt:
        console.print("Interrupted: servers, workers and data are gone.")
        sys.exit(130)
    record = report.record(results, size, time.monotonic() - began)
    if keep or (keep is None and not names and size.name != "quick"):
        record = report.write(record, RESULTS)
        charts_written = charts.draw(record, CHECKOUT / "docs" / "img")
        (CHECKOUT / "docs" / "speed.md").write_text(speed_page(), encoding="utf-8")
        console.print(f"Stored in benchmarks/results/, in {len(charts_written)} charts and in docs/speed.md.")
    if as_json:
        print(json.dumps(record, indent=1, ensure_ascii=False))
    else:
        stdout = Console(highlight=False)
        stdout.width = max(stdout.width, report.WIDTH)
        stdout.print(report.table(results))
    sys.exit(0 if all(result_.met for result_ in results) else 1)


def _measure(environment: Environment, chosen: list[Bench], size: Scale, console: Console) -> list[Result]:
    columns = (
        TextColumn("{task.description:<36}"),
        BarColumn(),
        TextColumn("{task.fields[now]:<40}"),
        TimeElapsedColumn(),
    )
    results: list[Result] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for bench in chosen:
            steps = bench.steps(size) + 1
            bar = progress.add_task(f"{bench.name} {bench.shows}"[:36], total=steps, now="")
            measured = bench.run(environment, size, lambda now, bar=bar: progress.update(bar, advance=1, now=now[:40]))  # type: ignore[misc]
            progress.update(bar, completed=steps, now=", ".join(map(report.short_line, measured)))
            if not console.is_terminal:
                console.print(f"{bench.name} {bench.shows}: {', '.join(map(report.short_line, measured))}")
            results += measured
    return results


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
