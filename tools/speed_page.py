"""Generator of `docs/speed.md`, from the last stored run of `./run bench`."""

from __future__ import annotations

import json
import statistics
from typing import Any

from workers.settings import CHECKOUT

RESULT = CHECKOUT / "benchmarks" / "results" / "latest.json"
PICTURES = {
    "cancelling": "Cancelling, orders per second",
    "scanning": "Unlocking, seconds",
    "waiting": "Waiting, milliseconds",
    "relay": "Handing over, per second",
    "bars": "Each measure against its bar",
}

PAGE = """\
# How fast it is

`./run bench` writes this page and its pictures from `benchmarks/results/latest.json`.

## How it is measured

`./run bench` works from a clean checkout, on servers of its own that flush to disk, and leaves nothing behind. Each
figure that counts is a **ratio of two measurements taken by turns in one run**, the median of several pairs: another
machine gives other figures and nearly the same ratios. After every measurement the rows of every table are counted on
both sides, and once the rows themselves are compared, column by column, JSON included. A reference that did less work
would end the run.

`./run bench B1 B4` measures some rows. `--quick` only shows that everything works; its ratios judge nothing. `--full`
takes the largest tables, and `--keep` stores the results. The command exits with 0 when every bar is met.

{younger}## Against what

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

YOUNGER = {
    "B4b": """\
- B4b, one order per message against dramatiq calling one SQL function that checks no rule (bar ≥ 1.4), and B4, whose
  bar is 2.5 since single commands that wait for a process run together
  ([decision 27](decisions/0027-group-commit.md)): 2.0 (490 against 245 orders/s) and 5.1 (against 96); B11 was 1.3 and
  2.5 (p50) in two other runs.
""",
    "B17": """\
- B17, 10,000 orders in batches until the last ledger line is posted, with every worker group running, against the rate
  of B1 (bar ≥ 0.7): no run on an idle machine yet.
""",
    "B18": """\
- B18, emails from the outbox to a local mail server against two bare smtplib loops (bar ≥ 0.5): 0.62 (1,946 emails/s).
  Before emails were built without `email.message`, and sent over a few connections with PIPELINING, it was 0.08.
""",
    "B19": """\
- B19, the delay of B13 while 20,000 emails wait and 10,000 cancellations are queued (bar ≤ 1.5 s): no run yet.
""",
    "B20": """\
- B20, bytes of log per cancellation against the bound's function (bar ≤ 1.3), without full-page images: 1.11 (14,400
  against 13,000). Machines don't matter for bytes.
""",
    "B21": """\
- B21, unlocking against one statement on a lean schema (bar ≤ 2.0): 1.82 in bytes of log (1,810 against 990). It was
  2.33 while an unlock wrote its order's row, too. Nearly all of the rest are eight indexes.
""",
    "B22": """\
- B22, commands by HTTP against the SQL interface (bar ≥ 0.5): 0.53 and 0.77 in two pairs with the data in memory (638
  against 997 orders/s), 1.1 on a busy disk, for which the two clients of the SQL interface wait at each commit. It was
  0.32 while each response waited 40 ms for the acknowledgement of its headers; an order takes 1.6 ms of processor time
  instead of 2.8. No run on an idle machine since.
""",
    "B23": """\
- B23, cancelling behind PgBouncer in transaction mode against cancelling without it (bars ≥ 0.4 singly and ≥ 0.6 in
  sets), is left out where there is no `pgbouncer`: 1.21 (647 against 533 orders/s) and 0.72 (797 against 1,110).
""",
}
"""What is known of measures that no whole run has had yet."""
YOUNGER_TITLE = "Younger than the figures below, and measured in small runs only, most of them on a busy machine:\n\n"

RESULTS = """
## The figures

Last measured on {at} on {cores} cores of {processor} ({system}, Python {python}), scale `{scale}`; a run of some
measures replaces only their rows.

| | measure | ours | reference | value (least … most) | bar | stretch | met |
| --- | --- | ---: | ---: | --- | --- | --- | --- |
{rows}

What bounds some of them:

- B17: it was 0.46 while the emails of a burst were sent during it, for 1.2 ms of processor time per order beside
  0.62 ms for the cancellation. Emails now wait for the commands
  ([decision 31](decisions/0031-emails-yield-to-commands.md)), and a commit wakes the tasks of its outbox rows itself
  ([decision 4](decisions/0004-outbox-rows-and-messages.md)): before, the relay wrote three rows per order once more,
  with entries in four indexes. The ledger's run shares the two cores with the cancellations.
- B19: until the relay left the rows of an unlock alone for 5 s ([decision 30](decisions/0030-sweeps-first.md)), alerts
  were 5 to 25 s late in some runs: it held such a row just when the sweep wanted to record the notice, which then
  waited behind the emails.
- B3: both sides vary by a tenth from run to run (27.8 to 30.7 in this one).
- B21: an unlock writes 1.8 times the log of the lean statement. Nearly all of the rest are eight indexes.

{pictures}
"""


def speed_page() -> str:
    """The whole page, as Markdown; without figures where no run was kept."""
    if not RESULT.exists():
        return PAGE.format(
            younger="", results="\n## The figures\n\nNo run has been kept yet: `./run bench` makes one.\n"
        )
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    kept = {one["measure"] for one in record["results"]}
    younger = "".join(note for measure, note in YOUNGER.items() if measure not in kept)
    folder = CHECKOUT / "docs" / "img"
    pictures = [
        f"![{title}](img/speed-{name}.svg)"
        for name, title in PICTURES.items()
        if (folder / f"speed-{name}.svg").exists()
    ]
    results = RESULTS.format(
        **record["machine"],
        at=record["at"],
        scale=record["scale"],
        rows="\n".join(_row(one) for one in record["results"]),
        pictures="\n\n".join(pictures),
    )
    return PAGE.format(younger=f"{YOUNGER_TITLE}{younger}\n" if younger else "", results=results)


def _row(one: dict[str, Any]) -> str:
    ours, reference = (_figure(one[side], one["unit"]) for side in ("ours", "reference"))
    value = f"**{one['value']:.3g}** ({one['least']:.3g} … {one['most']:.3g})"
    notes = "; ".join(
        [*(f"{name}: {_figure([figure], one['unit'])}" for name, figure in one["peers"].items()), *one["notes"]]
    )
    what = f"{one['what']}{f' ({notes})' if notes else ''}"
    stretch, met = f"{one['bar'][0]} {one['stretch']:g}", "yes" if one["met"] else "no"
    return f"| {one['measure']} | {what} | {ours} | {reference} | {value} | {one['bar']} | {stretch} | {met} |"


def _figure(values: list[float], unit: str) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"
