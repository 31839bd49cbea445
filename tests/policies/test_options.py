"""Tests that options match the policies of their commands, over random histories."""

from __future__ import annotations

from datetime import datetime

import pytest

import tasks
from policies import cancellation, npb, ocr, seller_alerts
from policies.cases import Actor, AlertKind, Case
from policies.options import ACTIONS, Option, Subject, list_options
from policies.removals import Removal
from policies.statuses import Role, Status
from policies.verdicts import ASK_AGAIN, Code, Granted, Refused
from tests.builders import BUYER, DAY, ORDERED, SECOND, SELLER, STAFF, a_case, granted
from tests.random_cases import PARTIES, random_life

tasks.import_all()
LINES = {1: 10, 2: 3}


def options_of(case: Case, actor: Actor, now: datetime) -> dict[str, Option]:
    return {option.action: option for option in list_options(Subject(case, LINES), actor, now)}


def test_every_action_of_the_problem_order_page_is_an_option() -> None:
    options = options_of(a_case(), SELLER, ORDERED)
    assert set(options) == {name for name, action in ACTIONS.items() if not action.per_removal}


@pytest.mark.parametrize("seed", range(120))
def test_options_match_the_policies_answers(seed: int) -> None:
    for step in random_life(seed):
        for actor in PARTIES:
            options = options_of(step.before, actor, step.now)
            assert all((o.possible_from is None) != o.why.endswith(ASK_AGAIN) for o in options.values())
            role = step.before.role_of(actor)
            answers = {
                "ocr.file": ocr.file_ocr(
                    step.before, actor, "S_NOT_PAID" if role is Role.SELLER else "B_SELLER_SILENT", "other", step.now
                ),
                "npb.file": npb.file_npb(step.before, actor, None, step.now),
                "npb.respond": npb.respond_to_npb(step.before, actor, "other words", step.now),
                "nss.file": seller_alerts.file_seller_alert(
                    step.before, AlertKind.NSS, actor, "NOT_AS_DESCRIBED", "blue instead of red", step.now
                ),
                "orders.cancel": cancellation.cancel(step.before, actor, None, None, step.now),
            }
            for action, answer in answers.items():
                option = options[action]
                assert option.possible is isinstance(answer, Granted), (action, option, answer)
                if isinstance(answer, Refused):
                    assert (option.code, option.why, option.possible_from) == (
                        answer.code,
                        answer.sentence,
                        answer.possible_from,
                    )


@pytest.mark.parametrize("seed", range(60))
def test_random_histories_only_take_listed_options(seed: int) -> None:
    for step in random_life(seed):
        if step.actor is None or step.before.role_of(step.actor) is Role.STAFF:
            continue
        option = options_of(step.before, step.actor, step.now).get(step.move)
        if option is not None and step.move not in (
            "ocr.file",
            "orders.set_status",
        ):  # those are about one value of many
            assert option.possible is isinstance(step.verdict, Granted)
            assert option.code == getattr(step.verdict, "code", None)


def test_possible_from_is_the_earliest_possible_time() -> None:
    """R19, R26: a second earlier it is not, at that instant it is."""
    early = options_of(a_case(), SELLER, ORDERED + 3 * DAY)["npb.file"]
    assert (early.code, early.possible_from) == (Code.TOO_EARLY, ORDERED + 7 * DAY)
    assert not options_of(a_case(), SELLER, ORDERED + 7 * DAY - SECOND)["npb.file"].possible
    assert options_of(a_case(), SELLER, ORDERED + 7 * DAY)["npb.file"].possible
    filed = granted(npb.file_npb(a_case(), SELLER, None, ORDERED + 7 * DAY))
    waiting = options_of(filed, SELLER, ORDERED + 8 * DAY)["orders.cancel"]
    assert (waiting.code, waiting.possible_from) == (Code.TOO_EARLY, ORDERED + 14 * DAY)
    assert "accepting the penalty" in waiting.unblocked_by
    assert options_of(filed, SELLER, ORDERED + 14 * DAY)["orders.cancel"].possible


def test_nothing_is_possible_on_a_cancelled_order() -> None:
    """R56, T22: every option says why."""
    filed = granted(ocr.file_ocr(a_case(), SELLER, "S_MUTUAL", "agreed by mail", ORDERED))
    done = granted(cancellation.cancel(filed, SELLER, None, None, ORDERED))
    for actor in PARTIES:
        options = options_of(done, actor, ORDERED)
        settle = options.pop("orders.settle_late_payment")
        assert settle.code is (Code.WRONG_ROLE if actor is BUYER else Code.NO_LATE_PAYMENT)
        assert {option.code for option in options.values()} == {Code.ALREADY_CANCELLED}


def test_staff_can_remove_a_completed_alert() -> None:
    filed = granted(npb.file_npb(a_case(), SELLER, None, ORDERED + 7 * DAY))
    done = granted(cancellation.cancel(filed, SELLER, None, None, ORDERED + 14 * DAY))
    possible = [action for action, option in options_of(done, STAFF, ORDERED + 15 * DAY).items() if option.possible]
    assert possible == ["npb.remove"]


def test_set_status_option_lists_the_statuses() -> None:
    option = options_of(a_case(Status.SHIPPED), BUYER, ORDERED)["orders.set_status"]
    assert option.as_json()["values"] == ["RECEIVED", "COMPLETED"]
    assert options_of(a_case(), BUYER, ORDERED)["orders.set_status"].code is Code.WRONG_STATUS
    assert options_of(a_case(Status.OCR), SELLER, ORDERED)["orders.set_status"].code is Code.ORDER_HAS_PROBLEM


def test_pending_removal_request_has_its_own_options() -> None:
    case = a_case()
    waiting = Removal(case.order.order_id, Role.BUYER, ((1, 2),), ORDERED, removal_id=7)
    options = list_options(Subject(case, LINES, [waiting]), SELLER, ORDERED + DAY)
    about = {option.action: option for option in options if option.removal_id == 7}
    assert {action: option.possible for action, option in about.items()} == {
        "removals.approve": True,
        "removals.deny": True,
        "removals.withdraw": False,
    }


def test_last_unit_of_an_order_cannot_be_removed() -> None:
    options = {option.action: option for option in list_options(Subject(a_case(), {1: 1}), BUYER, ORDERED)}
    assert options["removals.request"].code is Code.NOTHING_WOULD_REMAIN
