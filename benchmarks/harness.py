"""Scales, bars, results and the alternation of Unwind and its reference within one run.

Alternating lets a noisy machine affect both sides.  A result is the median of the ratios of at least five pairs,
printed with the minimum and the maximum.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.environment import Environment


@dataclass(frozen=True)
class Scale:
    """Size of a run: `quick` shows that everything works, `normal` counts, `full` uses the largest tables."""

    name: str
    pairs: int

    def of(self, quick: int, normal: int, full: int | None = None) -> int:
        return {"quick": quick, "normal": normal, "full": normal if full is None else full}[self.name]


SCALES = {"quick": Scale("quick", 1), "normal": Scale("normal", 5), "full": Scale("full", 5)}


@dataclass(frozen=True)
class Bar:
    """The target: `at_least` for gains, `at_most` for costs."""

    limit: float
    stretch: float
    at_least: bool = True
    unit: str = ""

    def met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"


@dataclass
class Result:
    measure: str
    what: str
    unit: str
    ours: list[float]
    reference: list[float]
    values: list[float]
    bar: str
    limit: float
    stretch: float
    met: bool
    peers: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "value": self.value, "least": min(self.values), "most": max(self.values)}


Step = Callable[[str], None]
"""Says what is being done now and moves the progress bar by one."""


@dataclass(frozen=True)
class Bench:
    """A benchmark: its title, its expected duration, and the function that measures."""

    name: str
    shows: str
    steps: Callable[[Scale], int]
    seconds: dict[str, float]
    run: Callable[[Environment, Scale, Step], list[Result]]


def result(
    measure: str,
    what: str,
    unit: str,
    bar: Bar,
    ours: Sequence[float],
    reference: Sequence[float],
    values: Sequence[float] | None = None,
    *,
    peers: dict[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """Build a result; without `values` they are the ratios ours / reference, pair by pair."""
    ratios = list(values) if values is not None else [a / b for a, b in zip(ours, reference, strict=True)]
    met = bar.met(statistics.median(ratios))
    return Result(
        measure,
        what,
        unit,
        list(ours),
        list(reference),
        ratios,
        str(bar),
        bar.limit,
        bar.stretch,
        met,
        peers or {},
        list(notes),
    )


def alternate(count: int, *measurements: Callable[[], float]) -> list[list[float]]:
    """Run the measurements `count` times, starting with a different one each time; return the figures of each."""
    figures: list[list[float]] = [[] for _ in measurements]
    for turn in range(count):
        for index in [(turn + offset) % len(measurements) for offset in range(len(measurements))]:
            figures[index].append(measurements[index]())
    return figures


def with_progress(step: Step, now: str, measurement: Callable[[], float]) -> Callable[[], float]:
    def run() -> float:
        step(now)
        return measurement()

    return run


class WorkMismatch(AssertionError):
    """A workload did not do the work it was measured for, so its time means nothing."""


def check_equal(what: str, actual: object, expected: object) -> None:
    """Raise WorkMismatch unless `actual` equals `expected`."""
    if actual != expected:
        raise WorkMismatch(f"{what}: there is {actual}, there should be {expected}")
