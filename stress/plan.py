"""The plan of a run as a pure function of the seed: lives of orders, waves of bulk commands, and faults.

Timing between processes can't be reproduced; what is tried, in which order and after which waits, can.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

SELLERS = tuple(f"s{n}" for n in range(6))
AUTOMATED = "s6"
"""The seller with automation, who has no bulk commands."""
AUTOMATION: dict[str, Any] = {
    "file_npb_after": 7,
    "cancel_after_unlock": 0,
    "agree_to_requests_within": 168,
    "exclude_buyers": [f"b{client}-{number}" for client in range(10) for number in range(0, 400, 4)],
}
EXCLUSIONS: dict[str, Any] = {
    "exclude_buyers": [f"w{client}-{number}" for client in range(10) for number in range(100)],
}
"""Of the other sellers: the buyers of bulk orders, whose requests are not declined before they are answered."""
STRANGER = "eve"
LOTS_EACH = 8
UNLOCK, UNLOCK_ANSWERED = 2, 4
"""Seconds: the week and the two weeks of this marketplace."""
SILENCE = 5
"""Seconds after which a buyer's request that nobody answers is declined."""
EXTENSION = 4.0
"""Seconds from now on, to which the buyer gets more time and automation is kept away."""
CLOCK_SKEW_SECONDS = 1800
"""Seconds: how wrong the clock of one group's machine is, ahead with odd seeds, behind with even ones."""
PRIVATE_WORDS = "planted-private-words"
"""Part of every comment; only the database and emails may contain it."""
BROKER, SQL, HTTP = "broker", "sql", "http"
FIRST_ORDER = 1_000_000
PAST_ORDERS_EACH, FIRST_PAST_ORDER = 30, 500_000
"""Orders of each client that are older than a week when the run begins, and on hold until their life begins."""


@dataclass(frozen=True)
class Step:
    """One command, sent after `wait` seconds: `copies` times at once, and again after each delay in `late`."""

    task: str
    arguments: dict[str, Any]
    wait: float = 0.0
    copies: int = 1
    late: tuple[float, ...] = ()


@dataclass(frozen=True)
class Life:
    """One order from purchase to its last command."""

    name: str
    interface: str
    order_id: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Wave:
    """Many orders: bought and requested to be cancelled by SQL, then cancelled by one message; or all of it in bursts
    of single messages."""

    name: str
    buyer: str
    seller: str
    orders: tuple[tuple[int, tuple[dict[str, int], ...]], ...]
    in_bursts: bool = False


@dataclass(frozen=True)
class Fault:
    """One fault: `at` seconds after the start of the round, its duration, and a random number for its choices."""

    at: float
    kind: str
    seconds: float
    choice: int


def lot_id(seller: str, number: int) -> int:
    return 1000 * (int(seller[1:]) + 1) + number


def member_arguments(member: str) -> dict[str, Any]:
    return {"member_id": member, "handle": member.title(), "email": f"{member}@example.org"}


def lot_arguments(seller: str, number: int) -> dict[str, Any]:
    """A lot that never runs out, of an item of its own."""
    return {
        "lot_id": lot_id(seller, number),
        "seller_id": seller,
        "item": {"no": f"3{number:03}", "type": "PART"},
        "color_id": number,
        "quantity": 1_000_000,
        "new_or_used": "N",
        "unit_price": ("0.0833", "12.5000", "99.9900", "1.0000")[number % 4],
    }


def past_order_arguments(number: int) -> dict[str, Any]:
    return {
        "order_id": FIRST_PAST_ORDER + number,
        "buyer_id": f"p{number}",
        "seller_id": AUTOMATED,
        "lines": [{"lot_id": lot_id(AUTOMATED, number % LOTS_EACH), "quantity": 2}],
    }


def terms_arguments() -> dict[str, Any]:
    """Terms of seconds, and strikes without consequences, so that the run does not run out of members."""
    return {
        "NPB_FILE_AFTER": "0s",
        "SELLER_ALERT_FILE_AFTER": "0s",
        "NPB_UNLOCK_NO_RESPONSE": f"{UNLOCK}s",
        "NPB_UNLOCK_RESPONSE": f"{UNLOCK_ANSWERED}s",
        "SELLER_ALERT_UNLOCK": f"{UNLOCK_ANSWERED}s",
        "STRIKE_LIMIT": 1000,
        "OCR_SILENCE": {"decline_after": f"{SILENCE}s"},
    }


# -- lives -------------------------------------------------------------------------------------------------------------

Move = tuple[str, str, dict[str, Any], float]
"""Who (buyer, seller, stranger, staff or nobody), which task, further arguments, seconds to wait before."""
COMMENT = {"comment": f"We spoke about it: {PRIVATE_WORDS}."}
SOON, LATER = UNLOCK + 0.3, UNLOCK_ANSWERED + 0.3
CANCEL: Move = ("seller", "orders.cancel", {}, 0)
FILE: Move = ("seller", "npb.file", COMMENT, 0)
ASK: Move = ("buyer", "ocr.file", {"reason": "B_MUTUAL", **COMMENT}, 0)
TAKE: Move = ("buyer", "removals.request", {"lines": [{"line_no": 1, "quantity": 1}]}, 0)
PAID: tuple[Move, ...] = (
    ("nobody", "orders.record_payment", {"payment_status": "Received"}, 0),
    ("seller", "orders.set_status", {"status": "PAID"}, 0),
)
CLAIMED: Move = ("nobody", "orders.record_payment", {"payment_status": "Sent"}, 0)
NOT_SHIPPED: Move = ("buyer", "nss.file", {"grounds": "INCOMPLETE", **COMMENT}, 0)
HOLD: Move = ("seller", "orders.hold_automation", COMMENT, 0)
RELEASE: Move = ("staff", "orders.release_automation", COMMENT, 0.2)
HOLD_A_WHILE: Move = ("staff", "orders.hold_automation", {**COMMENT, "until": None}, 0)
EXTEND: Move = ("seller", "npb.extend", {**COMMENT, "until": None}, 0)
"""The client replaces the empty time by one that is `EXTENSION` away."""
TERMINATE: Move = ("staff", "members.terminate", COMMENT, 0)
"""Of the buyer, who has no other order."""
STORIES: tuple[tuple[Move, ...], ...] = (
    (ASK, CANCEL),
    (("seller", "ocr.file", {"reason": "S_NOT_PAID", **COMMENT}, 0), CANCEL),
    (ASK, ("seller", "ocr.decline", {}, 0), FILE, CANCEL, (*CANCEL[:3], SOON)),
    (ASK, ("buyer", "ocr.withdraw", {}, 0), ASK, CANCEL),
    (FILE, CANCEL, (*CANCEL[:3], SOON)),
    (FILE, ("buyer", "npb.respond", COMMENT, 0.5), (*CANCEL[:3], SOON - 0.5), (*CANCEL[:3], LATER - SOON)),
    (FILE, ("buyer", "npb.accept_penalty", {}, 0), CANCEL),
    (FILE, ("buyer", "npb.accept_penalty", {}, 0), ("buyer", "npb.take_back", {}, 0), CANCEL, (*CANCEL[:3], LATER)),
    (FILE, ("seller", "npb.remove", COMMENT, 0.2), ASK, CANCEL),
    (FILE, ("buyer", "npb.respond", COMMENT, UNLOCK), CANCEL, (*CANCEL[:3], LATER - UNLOCK)),
    (("buyer", "nrs.file", COMMENT, 0), ("seller", "nrs.respond", COMMENT, 0), ("buyer", "orders.cancel", {}, LATER)),
    (("buyer", "nrs.file", COMMENT, 0), ("buyer", "nrs.remove", COMMENT, 0.3), ASK, CANCEL),
    (*PAID, NOT_SHIPPED, ("buyer", "orders.cancel", {}, 1.0), ("buyer", "orders.cancel", {}, LATER)),
    (*PAID, NOT_SHIPPED, ("seller", "nss.respond", COMMENT, 0.3), ("buyer", "orders.cancel", {}, LATER)),
    (*PAID, NOT_SHIPPED, ("buyer", "nss.remove", COMMENT, 0.2), ASK, CANCEL),
    (TERMINATE, CANCEL),
    (FILE, TERMINATE, CANCEL, (*CANCEL[:3], SOON)),
    (TAKE, ("seller", "removals.approve", {}, 0), ASK, CANCEL),
    (TAKE, ("seller", "removals.deny", {}, 0), TAKE, ASK, CANCEL),
    (TAKE, ("buyer", "removals.withdraw", {}, 0), FILE, (*CANCEL[:3], SOON)),
    (TAKE, TAKE, ASK, CANCEL),
    (("nobody", "orders.add_batch", {}, 0), ASK, CANCEL),
    (ASK, CANCEL, PAID[0], ("seller", "orders.settle_late_payment", COMMENT, 0)),
    (FILE, ("buyer", "npb.respond", COMMENT, SOON)),
    (FILE, HOLD, (*CANCEL[:3], SOON)),
    (HOLD, ASK, RELEASE),
    (FILE, HOLD, (*RELEASE[:3], SOON)),
    (FILE, HOLD_A_WHILE),
    (FILE, EXTEND, (*CANCEL[:3], SOON), (*CANCEL[:3], EXTENSION)),
    (FILE, EXTEND, ("buyer", "npb.accept_penalty", {}, 0.3), CANCEL),
    (ASK,),
    (ASK, HOLD_A_WHILE, (*FILE[:3], SILENCE)),
    (FILE, (*CANCEL[:3], SOON), CLAIMED, PAID[0], ("staff", "orders.settle_late_payment", COMMENT, 0.2)),
)
PAST_STORIES: tuple[tuple[Move, ...], ...] = (
    (RELEASE,),
    (RELEASE, (*CLAIMED[:3], 0.5)),
    (RELEASE, (*CLAIMED[:3], SOON), ("staff", "orders.settle_late_payment", COMMENT, 0)),
    (RELEASE, (*EXTEND[:3], 0.8)),
    (RELEASE, ("buyer", "npb.accept_penalty", {}, 1.0)),
    (RELEASE, ("seller", "npb.remove", COMMENT, 1.0), FILE),
    (HOLD_A_WHILE, FILE),
    (CLAIMED, RELEASE, ("nobody", "orders.record_payment", {"payment_status": "None"}, 0.3)),
)
"""Of orders that are old enough to be filed automatically, and on hold."""
NOISE: tuple[Move, ...] = (
    ("stranger", "orders.cancel", {}, 0),
    ("staff", "orders.cancel", {}, 0),
    ("buyer", "orders.cancel", {}, 0),
    ("buyer", "npb.file", {}, 0),
    ("seller", "ocr.decline", {}, 0),
    ("seller", "npb.respond", COMMENT, 0),
    ("stranger", "npb.remove", {}, 0),
    ("seller", "orders.set_status", {"status": "READY"}, 0),
    ("buyer", "ocr.file", {"reason": "S_MUTUAL", **COMMENT}, 0),
    ("buyer", "ocr.file", {"reason": "B_MUTUAL", "comment": " "}, 0),
    ("buyer", "orders.settle_late_payment", COMMENT, 0),
    CLAIMED,
)


def lives(seed: int, client: int, interface: str) -> Iterator[Life]:
    number = 0
    while True:
        yield life(seed, client, number, interface)
        if number % 4 == 3 and number < 4 * PAST_ORDERS_EACH:
            yield life_of_past_order(seed, client * PAST_ORDERS_EACH + number // 4, interface)
        number += 1


def life(seed: int, client: int, number: int, interface: str) -> Life:
    random_ = random.Random(f"{seed}/life/{client}/{number}")
    order_id = FIRST_ORDER * (client + 1) + number
    buyer, seller = f"b{client}-{number}", random_.choice((*SELLERS, AUTOMATED, AUTOMATED))
    moves = list(random_.choice(STORIES))
    for _ in range(random_.choice((0, 0, 1, 2))):
        moves.insert(random_.randrange(len(moves) + 1), random_.choice(NOISE))
    moves += [CANCEL] * random_.choice((0, 1))
    steps = (Step("members.record", member_arguments(buyer)), _submit(random_, order_id, buyer, seller))
    return Life(buyer, interface, order_id, (*steps, *_steps(random_, moves, order_id, buyer, seller)))


def life_of_past_order(seed: int, number: int, interface: str) -> Life:
    random_ = random.Random(f"{seed}/past/{number}")
    past = past_order_arguments(number)
    order_id, buyer, moves = past["order_id"], past["buyer_id"], random_.choice(PAST_STORIES)
    return Life(buyer, interface, order_id, tuple(_steps(random_, moves, order_id, buyer, AUTOMATED)))


def _steps(random_: random.Random, moves: Sequence[Move], order_id: int, buyer: str, seller: str) -> Iterator[Step]:
    whose = {
        "buyer": {"member_id": buyer},
        "seller": {"member_id": seller},
        "stranger": {"member_id": STRANGER},
        "staff": {"staff": "kim"},
        "nobody": {},
    }
    for actor, task, extra, wait in moves:
        about: dict[str, Any] = {"order_id": order_id}
        if task in ("removals.approve", "removals.deny", "removals.withdraw"):
            about = {"removal_id": None}  # known when the request is answered
        elif task == "members.terminate":
            about = {"member_id": buyer}
        arguments = about | whose[actor] | extra
        if task == "orders.add_batch":
            arguments["lines"] = _lines(random_, seller)
        yield Step(task, arguments, wait, *_delivery(random_))


def _submit(random_: random.Random, order_id: int, buyer: str, seller: str) -> Step:
    arguments = {"order_id": order_id, "buyer_id": buyer, "seller_id": seller, "lines": _lines(random_, seller)}
    return Step("orders.submit", arguments, 0.0, *_delivery(random_))


def _lines(random_: random.Random, seller: str) -> list[dict[str, int]]:
    numbers = sorted(random_.sample(range(LOTS_EACH), random_.randint(1, 3)))
    return [{"lot_id": lot_id(seller, number), "quantity": random_.randint(3, 9)} for number in numbers]


def _delivery(random_: random.Random) -> tuple[int, tuple[float, ...]]:
    """Choose copies and delays: most messages arrive once, some up to five times, some again much later."""
    copies = random_.choices((1, 2, 3, 5), (80, 12, 5, 3))[0]
    late = tuple(random_.uniform(0.5, 12.0) for _ in range(random_.choices((0, 1, 2), (85, 11, 4))[0]))
    return copies, late


def waves(seed: int, client: int, size: int) -> Iterator[Wave]:
    number = 0
    while True:
        random_ = random.Random(f"{seed}/wave/{client}/{number}")
        seller = random_.choice(SELLERS)
        first = FIRST_ORDER * (client + 1) + number * size
        bought = tuple((first + n, tuple(_lines(random_, seller)[:1])) for n in range(size))
        yield Wave(f"w{client}-{number}", f"w{client}-{number}", seller, bought, in_bursts=number % 2 == 0)
        number += 1


# -- faults ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaultRate:
    """Faults per round of `ROUND_SECONDS` (a fraction means fewer than one a round), and their duration."""

    times: float
    seconds: tuple[float, float] = (0.0, 0.0)


ROUND_SECONDS = 20.0
FAULT_RATES: dict[str, FaultRate] = {
    "kill_child": FaultRate(6),
    "kill_worker": FaultRate(2),
    "kill_beat": FaultRate(0.5),
    "kill_web": FaultRate(1.0),
    "step_clock": FaultRate(0.3, (4.0, 9.0)),
    "stop_worker": FaultRate(0.35, (8.0, 9.0)),
    "stop_child": FaultRate(0.2, (8.0, 9.0)),
    "term_worker": FaultRate(0.3),
    "quit_worker": FaultRate(0.2),
    "flush_broker": FaultRate(0.3),
    "kill_broker": FaultRate(0.25),
    "empty_broker": FaultRate(0.25),
    "close_broker": FaultRate(0.15, (1.5, 4.0)),
    "sleep_broker": FaultRate(0.2, (1.0, 4.0)),
    "storm": FaultRate(0.25, (3.0, 5.0)),
    "cut_broker": FaultRate(0.5, (0.5, 3.0)),
    "cut_database": FaultRate(0.4, (0.5, 3.0)),
    "end_session": FaultRate(1.0),
    "end_sessions": FaultRate(0.25),
    "stop_database": FaultRate(0.25),
    "kill_database": FaultRate(0.15),
    "close_database": FaultRate(0.1, (1.5, 3.0)),
    "full_disk": FaultRate(0.15, (2.0, 4.0)),
    "hold_locks": FaultRate(0.5, (2.0, 5.0)),
    "hold_dead_jobs": FaultRate(0.3, (2.0, 6.0)),
    "refuse_writes": FaultRate(0.3, (2.0, 6.0)),
    "deadlock": FaultRate(0.4, (0.5, 1.0)),
    "mail_4xx": FaultRate(0.3, (2.0, 5.0)),
    "mail_5xx": FaultRate(0.15, (1.0, 2.0)),
    "mail_hangs": FaultRate(0.15, (2.0, 5.0)),
    "mail_closes": FaultRate(0.2, (1.0, 4.0)),
    "hostile": FaultRate(1.0),
    "poison": FaultRate(0.5),
}
SENTINEL_FAULT_RATES = {
    "fail_over_broker": FaultRate(0.3),
    "lose_broker_tail": FaultRate(0.5, (1.0, 3.0)),
    "demote_broker": FaultRate(0.3),
}
"""With a broker that Sentinel watches, instead of `SINGLE_BROKER_FAULTS`."""
SINGLE_BROKER_FAULTS = ("kill_broker", "empty_broker", "close_broker", "cut_broker")
SERVERS = {
    "broker": ("kill_broker", "empty_broker", "close_broker", *SENTINEL_FAULT_RATES),
    "database": ("stop_database", "kill_database", "close_database"),
}
FATAL_FAULTS = frozenset(
    {"kill_child", "kill_worker", "kill_web", "flush_broker", "storm", *SERVERS["broker"], *SERVERS["database"]}
)
"""The faults that `intensity` multiplies."""
MIN_FAULT_GAP_SECONDS = 11.0
"""Between two deaths of one server: its daemon gives up a server that keeps dying right after its start."""


@dataclass
class _ShuffledFaults:
    seed: int
    intensity: float = 1.0
    sentinel: bool = False
    owed: dict[str, float] = field(default_factory=dict)

    def draw_faults(self, number: int, length: float) -> list[Fault]:
        random_ = random.Random(f"{self.seed}/faults/{number}")
        drawn_kinds: list[str] = []
        rates = FAULT_RATES | (SENTINEL_FAULT_RATES if self.sentinel else {})
        for kind in SINGLE_BROKER_FAULTS if self.sentinel else ():
            rates.pop(kind)
        for kind, rate in rates.items():
            first = random.Random(f"{self.seed}/{kind}").random()
            times = rate.times * (self.intensity if kind in FATAL_FAULTS else 1)
            owed = self.owed.get(kind, first) + times * length / ROUND_SECONDS
            drawn_kinds += [kind] * int(owed)
            self.owed[kind] = owed - int(owed)
        random_.shuffle(drawn_kinds)
        faults: list[Fault] = []
        ends: dict[str, float] = {}
        for number_in, kind in enumerate(drawn_kinds):
            at = 0.5 + (length - 0.5) * (number_in + random_.random()) / len(drawn_kinds)
            server = next((name for name, kinds in SERVERS.items() if kind in kinds), None)
            if server is not None:
                if at - ends.get(server, -MIN_FAULT_GAP_SECONDS) < MIN_FAULT_GAP_SECONDS:
                    self.owed[kind] += 1  # in the next round
                    continue
                ends[server] = at
            faults.append(Fault(at, kind, random_.uniform(*rates[kind].seconds), random_.randrange(10**6)))
        return faults


def faults(
    seed: int, length: float = ROUND_SECONDS, intensity: float = 1.0, *, sentinel: bool = False
) -> Iterator[list[Fault]]:
    """Yield the faults of each round.  `intensity` multiplies kills, losses and storms; `sentinel` adds failovers."""
    shuffled_faults, number = _ShuffledFaults(seed, intensity, sentinel), 0
    while True:
        yield shuffled_faults.draw_faults(number, length)
        number += 1
