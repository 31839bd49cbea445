"""A minute of `./run torture`, with a known plan and with a random one."""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stress import plan
from stress.report import keep_failure, report
from stress.run import RunOptions, prepare_run


def run_outcome(options: RunOptions, folder: Path) -> dict[str, Any]:
    with prepare_run(folder / "environment", options) as (run, history):
        outcome = run.go()
    kept = keep_failure(outcome, history, folder) if outcome.violations else []
    assert not outcome.violations, (outcome.violations[:20], [str(path) for path in kept])
    figures = report(outcome)
    assert figures["accepted"] == figures["commands"] - figures["given_up"] - figures["invalid"]
    assert figures["http_answers"] > 0
    assert figures["worker_kills"] + figures["child_kills"] > 0
    return figures


@pytest.mark.long
@pytest.mark.timeout(240)  # half a minute on a quiet machine
@pytest.mark.guarantee("P1", "P2", "P3", "P6")
def test_known_plan_has_no_violation(tmp_path: Path) -> None:
    run_outcome(RunOptions(seed=4, seconds=20), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(240)  # half a minute on a quiet machine
@pytest.mark.guarantee("P1", "P2", "P3", "P6")
def test_random_plan_has_no_violation(tmp_path: Path) -> None:
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    run_outcome(RunOptions(seed=seed, seconds=20), tmp_path)


@pytest.mark.long
@pytest.mark.timeout(240)  # half a minute on a quiet machine
@pytest.mark.guarantee("P1", "P2", "P3", "P6")
def test_failovers_of_the_broker_have_no_violation(tmp_path: Path) -> None:
    """A demoted primary that takes writes, then a replica without the last messages."""
    figures = run_outcome(RunOptions(seed=17, seconds=20, sentinel=True), tmp_path)
    assert figures["failovers"] >= 2
    assert figures["lost_tail_bytes"] > 0


def test_plan_is_a_function_of_the_seed() -> None:
    def planned(seed: int) -> object:
        return [
            list(itertools.islice(stream, 4))
            for stream in (plan.lives(seed, 0, plan.SQL), plan.waves(seed, 1, 5), plan.faults(seed))
        ]

    assert planned(7) == planned(7)
    assert planned(7) != planned(8)


def test_failovers_replace_the_ends_of_a_single_broker() -> None:
    rounds = list(itertools.islice(plan.faults(7, sentinel=True), 40))
    kinds = {fault.kind for faults in rounds for fault in faults}
    assert kinds == (plan.FAULT_RATES | plan.SENTINEL_FAULT_RATES).keys() - plan.SINGLE_BROKER_FAULTS


def test_intensity_multiplies_fatal_faults() -> None:
    def fault_counts(intensity: float) -> Counter[str]:
        rounds = itertools.islice(plan.faults(7, intensity=intensity), 40)
        return Counter(fault.kind for faults in rounds for fault in faults)

    usual, tripled = fault_counts(1), fault_counts(3)
    # Their number is limited by their distance.
    ends_of_servers = {name for kinds in plan.SERVERS.values() for name in kinds}
    for kind, times in usual.items():
        if kind in ends_of_servers:
            assert tripled[kind] >= times, kind
        else:
            assert abs(tripled[kind] - times * (3 if kind in plan.FATAL_FAULTS else 1)) <= 3, kind


def test_half_an_hour_contains_the_planned_faults() -> None:
    rounds = 30 * 60 // 35  # rounds of 20 s, with 15 s for finishing and comparing
    for seed in range(5):
        kinds = [fault.kind for faults in itertools.islice(plan.faults(seed), rounds) for fault in faults]
        assert kinds.count("kill_worker") >= 75
        assert kinds.count("kill_child") >= 250
        assert sum(kinds.count(kind) for kind in ("flush_broker", *plan.SERVERS["broker"])) >= 25
        assert kinds.count("storm") >= 5
        assert sum(kinds.count(kind) for kind in plan.SERVERS["database"]) >= 13
