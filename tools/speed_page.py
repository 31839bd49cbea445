"""Generator of `docs/speed.md`, from the last stored run of `./run bench`."""

from __future__ import annotations

import json
import statistics
from typing import Any

from workers.settings import CHECKOUT

RESULT = CHECKOUT / "benchmarks" / "results" / "latest.json"
CHARTS = {
    "cancelling": "Cancelling, orders per second",
    "scanning": "Unlocking, seconds",
    "waiting": "Waiting, milliseconds",
    "relay": "Handing over, per second",
    "bars": "Each measure against its bar",
}

PAGE = """\
# How fast it is

`./run bench` writes this page and its charts from `benchmarks/results/latest.json`.

## How it is measured

`./run bench` works from a clean checkout, on servers of its own that flush to disk, and leaves nothing behind. Each
figure that counts is a **ratio of two measurements taken by turns in one run**, the median of several pairs: another
machine gives other figures and nearly the same ratios. After every measurement the rows of every table are counted on
both sides, and once the rows themselves are compared, column by column, JSON included. A reference that did less work
would end the run.

`./run bench B1 B4` measures some rows. `--quick` only shows that everything works; its ratios judge nothing. `--full`
takes the largest tables, and `--keep` stores the results. The command exits with 0 when every bar is met.

## Against what

- **The bound** is pgbench with two clients calling one SQL function that writes what a cancellation writes, on the
  same schema, a hundred orders per transaction, without checking any rule
  ([`benchmarks/reference_writes.py`](../benchmarks/reference_writes.py)).
- **The bare Celery task** calls that function with one order: prefork, a prefetch of 64, early acknowledgement, no
  events, its statement prepared ([`benchmarks/bare_celery.py`](../benchmarks/bare_celery.py)).
- **dramatiq**, two processes of eight threads, runs the body of `orders.cancel`; as a peer and for B4b it calls that
  function without storing results ([`benchmarks/dramatiq_peer.py`](../benchmarks/dramatiq_peer.py)).
- **The naive job** is Celery as it comes and an ORM object per row
  ([`benchmarks/naive_orm.py`](../benchmarks/naive_orm.py)).
- **The raw statement** unlocks all due alerts with their events and outbox rows at once
  ([`benchmarks/scans.py`](../benchmarks/scans.py)).

Every order has five lines in five lots and an unlocked alert. Its cancellation updates the order, the alert, five lines
and five lots, and inserts five stock moves, a strike, an event, three outbox rows and the request row. A batch of a
hundred belongs to one store; single messages go from store to store.
{results}"""

RESULTS = """
## The figures

Last measured on {at} on {cores} cores of {processor} ({system}, Python {python}), scale `{scale}`; a run of some
measures replaces only their rows.

| | measure | ours | reference | value (least … most) | bar | stretch | met |
| --- | --- | ---: | ---: | --- | --- | --- | --- |
{rows}

What bounds some of them:

- One run measured all rows. Two of the bars are missed, B1 and B21; every other one is met.
- B1: an order took 0.37 ms of PostgreSQL, 0.23 of the two pool processes, 0.03 of the worker and 0.01 of Valkey, and
  the bound about 0.3 in all. So 0.5 is reached when the bound is at its slowest, and the pairs reach from 0.41 to 0.57.
  The bound's writes are about four fifths of PostgreSQL's time; the rest locks items and lots and reads what the rules
  need. Python's is spread over parsing, rules, event, messages and answer, and none of the project's
  functions has more than a twentieth. What was tried last: rows that travel as columns, updates that name only what
  changed, and faster JSON for results took 8 % off Python (B3 went from 27 to 30); pipelines sent in one piece gave
  nothing ([decision 11](decisions/0011-cancellation-performance.md)).
- B6, B7 and B21: an unlock writes eight index entries. Its payload is written as text, in about two thirds of the time
  of the JSON functions, and its terms are joined once. Of 27 µs for an alert, the update takes 8, the outbox row 9, the
  event 4 and finding it 4. What the lean statement of B21 does not write are the lock of the order, by which commands
  and sweeps exclude each other, and five index entries; that is the factor of two. Finding the alert's row by its place
  instead of its key changed nothing. Two workers share two cores with PostgreSQL's other processes; that each also
  passes over the orders which the other has locked is a likely cost of B7 that nobody has measured.
- B17: it was 0.46 while the emails of a burst were sent during it, for 1.2 ms of processor time per order, and 0.62
  while they began in its middle: a worker held all waiting sets, so that the queue looked empty. A set ends a block now
  ([decision 27](decisions/0027-group-commit.md)), and emails also wait for many credits
  ([decision 31](decisions/0031-emails-yield-to-commands.md)). A commit wakes the tasks of its outbox rows itself
  ([decision 4](decisions/0004-outbox-rows-and-messages.md)), and a trigger checks the parties of all lines of a
  statement at once: foreign keys took a third of the insert.
- B19: until the relay left the rows of an unlock alone for 5 s ([decision 30](decisions/0030-sweeps-first.md)), alerts
  were 5 to 25 s late in some runs: it held such a row just when the sweep wanted to record the notice, which then
  waited behind the emails.

{charts}
"""


def speed_page() -> str:
    """The whole page, as Markdown; without figures where no run was kept."""
    if not RESULT.exists():
        return PAGE.format(results="\n## The figures\n\nNo run has been kept yet: `./run bench` makes one.\n")
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    folder = CHECKOUT / "docs" / "img"
    charts = [
        f"![{title}](img/speed-{name}.svg)" for name, title in CHARTS.items() if (folder / f"speed-{name}.svg").exists()
    ]
    results = RESULTS.format(
        **record["machine"],
        at=record["at"],
        scale=record["scale"],
        rows="\n".join(_row(result) for result in record["results"]),
        charts="\n\n".join(charts),
    )
    return PAGE.format(results=results)


def _row(result: dict[str, Any]) -> str:
    ours, reference = (_figure(result[side], result["unit"]) for side in ("ours", "reference"))
    value = f"**{result['value']:.3g}** ({result['least']:.3g} … {result['most']:.3g})"
    notes = "; ".join(
        [
            *(f"{name}: {_figure([figure], result['unit'])}" for name, figure in result["peers"].items()),
            *result["notes"],
        ]
    )
    what = f"{result['what']}{f' ({notes})' if notes else ''}"
    stretch, met = f"{result['bar'][0]} {result['stretch']:g}", "yes" if result["met"] else "no"
    return f"| {result['measure']} | {what} | {ours} | {reference} | {value} | {result['bar']} | {stretch} | {met} |"


def _figure(values: list[float], unit: str) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
