"""What does support read?  `docs/support.md`, made from the transition table and the glossary, never by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from policies.glossary import BASES, CODES, STATUSES
from policies.statuses import ADDABLE, OCR_FILEABLE_BY_DEFAULT, OPEN_FLOW, PROBLEM, Status
from policies.transitions import NON_FINAL, NPB_FILEABLE, PREVIOUS, SAME, TABLE, Transition

GROUPS: tuple[tuple[str, tuple[Status, ...]], ...] = (
    ("OPEN_FLOW", OPEN_FLOW),
    ("OCR_FILEABLE", OCR_FILEABLE_BY_DEFAULT),
    ("ADDABLE", ADDABLE),
    ("PROBLEM", PROBLEM),
    ("any but CANCELLED", NON_FINAL),
    ("OPEN_FLOW or OCR", NPB_FILEABLE),
)

PAGE = """\
# What support needs to know

This page is made by `./run docs` from `policies/transitions.py` and `policies/glossary.py`; a test compares it. Do not
edit it by hand.

Ask about one order: `./run explain order ID` says what its seller and its buyer can do now, and for everything else why
not, from when, and what would change it. `./run show order ID` tells its story, `--at T` as of any instant.

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

## Refusal codes

{codes}
"""

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
    """The whole page, as Markdown."""
    return PAGE.format(
        diagram="\n".join(f"    {line}" for line in DIAGRAM),
        open=", ".join(OPEN_FLOW),
        rows="\n".join(_row(row) for row in TABLE),
        groups="\n".join(f"- `{name}`: {', '.join(group)}" for name, group in GROUPS[:4]),
        statuses=_list(STATUSES),
        bases=_list(BASES),
        codes=_list(CODES),
    )


def _row(row: Transition) -> str:
    by = ", ".join(str(actor) for actor in row.actors)
    return f"| {row.name} | {_sources(row.sources)} | {row.says} | {by} | {_target(row)} | {row.effects} |"


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
    return row.target if row.target in (PREVIOUS, SAME) else f"**{row.target}**"


def _list(meanings: Mapping[Any, str]) -> str:
    return "\n".join(f"- `{word}`: {meaning}." for word, meaning in meanings.items())
