"""B9: peak memory of a scan that unlocks a million alerts against one that unlocks ten thousand.

Each runs in a fresh worker process; the kernel's figure counts.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, alternate, result, with_progress
from benchmarks.scans import Scans, prepare_scans, sweep_workers


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    big, small = scale.of(20_000, 1_000_000), scale.of(1_000, 10_000)
    step(f"making {big:,} due alerts")
    with prepare_scans(environment, big) as many, prepare_scans(environment, small) as few:
        ratios = alternate(
            scale.pairs,
            with_progress(step, f"{big:,} due", lambda: peak(environment, many)),
            with_progress(step, f"{small:,} due", lambda: peak(environment, few)),
        )
    what = f"peak memory scanning {big:,} / {small:,} due"
    return [result("B9", what, "MB", Bar(1.2, 1.05, at_least=False), *ratios)]


def peak(environment: Environment, scans: Scans) -> float:
    """Return the peak memory of the scanning process, in megabytes."""
    with sweep_workers(environment, 1) as client:
        scans.swept(client, 1)
        head = psutil.Process(environment.supervisor.pid("sweeps"))
        return max(_peak_of(child) for child in head.children(recursive=True))


def _peak_of(process: psutil.Process) -> float:
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:  # this system reports no peak: the memory after the scan
        return float(process.memory_info().rss) / 2**20
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


BENCH = Bench(
    "B9", "memory of a worker that scans a million", lambda s: 1 + 2 * s.pairs, {"quick": 16, "normal": 170}, run
)
