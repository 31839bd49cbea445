"""Generator of `docs/support.md`, from the transition table and the glossary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from models.ddl.views import VIEWS
from policies.reasons import REASONS
from policies.statuses import ADDABLE_STATUSES, OCR_FILEABLE_BY_DEFAULT, OPEN_FLOW, PROBLEM, Status
from tools.glossary import BASES, CODES, STATUSES
from tools.transitions import NON_FINAL, NPB_FILEABLE, PREVIOUS, TABLE, UNCHANGED, Transition

GROUPS: tuple[tuple[str, tuple[Status, ...]], ...] = (
    ("OPEN_FLOW", OPEN_FLOW),
    ("OCR_FILEABLE", OCR_FILEABLE_BY_DEFAULT),
    ("ADDABLE", ADDABLE_STATUSES),
    ("PROBLEM", PROBLEM),
    ("any but CANCELLED", NON_FINAL),
    ("OPEN_FLOW or OCR", NPB_FILEABLE),
)

PAGE = """\
# What support needs to know

This page is made by `./run docs` from `tools/transitions.py`, `tools/glossary.py` and `models/ddl/views.py`;
`./run check` compares it. Do not edit it by hand.

For one order, `./run explain order ID` first says how and when its seller and its buyer can cancel it, then what they
can do now. With `--all` it also lists everything else: why it is impossible, when it becomes possible, and what would
change that. `./run show order ID` tells the order's story, with `--at T` as of any instant. Dates are in UTC, or with
`--zone Europe/Berlin` in that zone; the exact times are in `--json`.

## Ready answers

| question | command | where to look |
| --- | --- | --- |
{answers}

## How to read an order

Below the heading is the **verdict** in one sentence. It is followed by the parties; for a cancelled order, when, by
whom and on which ground it was cancelled (see below); each **line** with the units removed and the units returned,
and to which lot; the latest cancel request and the latest **alert**, with the time at which it allows a cancellation;
removal requests; and the **fee**, with the bill that has its credit. *What happened* is the timeline, which never
changes. *Inventory movements* is the stock journal: minus for units that left a lot, plus for units that came back.
*Emails* has every email in full. Statuses in capitals and codes are explained below. All of this is in `--json` too.

## The same with SQL

Dashboards and reports read these views (role `unwind_reader`); `contract/views/` freezes their columns. Columns may be
added at the end, and none is removed. They show the same as the commands above, and a test compares both.

{views}

## The life of an order

```mermaid
stateDiagram-v2
{diagram}
```

`open` stands for {open}.

## Every transition

| | from | event | by | to | what follows |
| --- | --- | --- | --- | --- | --- |
{rows}

Groups:

{groups}

## Statuses

{statuses}

## On what ground an order was cancelled

{bases}

## Reasons for cancelling

`ocr.file` and `orders.cancel` take one of these codes from the party that sends the command.

{reasons}

## Refusal codes

{codes}
"""

ANSWERS = (
    (
        "Why can't I cancel this order, and when can I?",
        "`./run explain order 1003`",
        "the first sentences: each party's steps with their dates, or what would make it possible",
    ),
    (
        "What happened to this order?",
        "`./run show order 1003`",
        "the timeline: who, what, when, why",
    ),
    (
        "What did it look like on Monday?",
        "`./run show order 1003 --at 2026-03-30T09:00:00Z`",
        "the same page, as of then",
    ),
    (
        "Where is my credit?",
        "`./run credits s-881`",
        "one sentence for each cancelled order: reset, on which bill, or why there is none",
    ),
    (
        "I paid after the order was cancelled. Where is my money?",
        "`./run show late-payments`, `./run show order 1003`",
        "whether the seller has settled it; the seller sends it back, and then says so",
    ),
    (
        "Where did my bricks go?",
        "`./run show order 1003`",
        '"Inventory movements": lot by lot; `NEEDS_REVIEW` marks lots that the seller should look at',
    ),
    (
        "I got no email.",
        "`./run show notices --order 1003`",
        "each email with its text, its recipient, and when it was sent, or that it is waiting",
    ),
    (
        "I pressed the button and got no answer.",
        "`./run show request REQUEST_ID`",
        "answered, waiting, or dead (it failed and waits for staff); sending it again with the same id is always safe",
    ),
    (
        "How many alerts unlock tomorrow? Is anything late?",
        "`./run forecast`",
        "overdue alerts at the top, then a cell for each hour",
    ),
    (
        "Why may this member not buy or sell?",
        "`./run show member b-12`",
        "privileges, and the orders whose strikes count",
    ),
    (
        "What is on my bill?",
        "`./run show bill s-881 2026-03`",
        "each line with its reason; `--html` is a page to send",
    ),
)
"""Question, command, and what to read in its output."""

DIAGRAM = (
    "[*] --> open: submit",
    "open --> OCR: T1 T2 cancel request",
    "OCR --> open: T3 declined, T6 withdrawn",
    "OCR --> CANCELLED: T4 T5 seller cancels",
    "open --> NPB: T7 seller files",
    "OCR --> NPB: T7 seller files",
    "NPB --> NPX: T9 buyer accepts the penalty",
    "NPX --> NPB: T10 buyer takes it back",
    "NPB --> open: T11 removed, PENDING",
    "NPX --> open: T11 removed, PENDING",
    "NPB --> CANCELLED: T13 matured, seller cancels",
    "NPX --> CANCELLED: T13 seller cancels",
    "open --> NRS: T14 buyer files, unpaid",
    "open --> NSS: T15 buyer files, paid",
    "OCR --> NRS: T14",
    "OCR --> NSS: T15",
    "NRS --> open: T16 removed, PENDING",
    "NSS --> open: T16 removed, PENDING",
    "NRS --> CANCELLED: T17 matured, buyer cancels",
    "NSS --> CANCELLED: T17 matured, buyer cancels",
    "open --> CANCELLED: T18 T19 other party terminated",
    "CANCELLED --> [*]",
)


def support_page() -> str:
    """The page as Markdown."""
    return PAGE.format(
        diagram="\n".join(f"    {line}" for line in DIAGRAM),
        open=", ".join(OPEN_FLOW),
        rows="\n".join(_row(row) for row in TABLE),
        groups="\n".join(f"- `{name}`: {', '.join(group)}" for name, group in GROUPS[:4]),
        statuses=_list(STATUSES),
        bases=_list(BASES),
        codes=_list(CODES),
        reasons="\n\n".join(f"The {role}:\n\n{_list(reasons)}" for role, reasons in REASONS.items()),
        answers="\n".join(f"| {question} | {typed} | {read} |" for question, typed, read in ANSWERS),
        views=_views(),
    )


def _views() -> str:
    return "\n\n".join(
        f"**`unwind.{view.name}`** (version {view.version}): {view.description}\n\n"
        + "\n".join(f"- `{name}`: {meaning}" for name, _, meaning in view.columns)
        for view in VIEWS
    )


def _row(row: Transition) -> str:
    by = ", ".join(str(actor) for actor in row.actors)
    return f"| {row.name} | {_sources(row.sources)} | {row.description} | {by} | {_target(row)} | {row.effects} |"


def _sources(sources: Iterable[Status]) -> str:
    wanted = tuple(sources)
    if not wanted:
        return "–"
    if set(wanted) < set(OPEN_FLOW) and len(wanted) == len(OPEN_FLOW) - 1:
        return "any other OPEN_FLOW"
    return next((name for name, group in GROUPS if group == wanted), ", ".join(wanted))


def _target(row: Transition) -> str:
    if row.target is None:
        return "–"
    return row.target if row.target in (PREVIOUS, UNCHANGED) else f"**{row.target}**"


def _list(meanings: Mapping[Any, str]) -> str:
    return "\n".join(f"- `{word}`: {meaning.removesuffix('.')}." for word, meaning in meanings.items())
