"""Is everybody told exactly once, whatever happens to the mail server?"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from models import notices
from models.work import Work, unit_of_work
from policies.verdicts import Promise
from workers.stage import Stage

FACTS = {"reason": "B_OTHER", "comment": "Please."}
TOLD = {"event": "ocr_filed", "recipient": "sam", "role": "seller", "facts": FACTS}


def promise(stage: Stage, key: str = "ocr_filed:1:2:sam", **changed: object) -> None:
    """Promise one notice to the seller `sam`."""
    work: Work[Any]
    with unit_of_work() as work:
        work.promise([Promise("notices.tell_seller", key, None, TOLD | changed)])


@pytest.fixture
def sam(stage: Stage) -> Stage:
    """A stage on which there is a member `sam`."""
    answer = stage.do("members.record", member_id="sam", handle="Sam", email="sam@example.org")
    assert answer["outcome"] == "done", answer
    return stage


def test_a_promise_to_tell_becomes_one_notice_and_without_a_postbox_counts_as_sent(sam: Stage) -> None:
    """N1; contract 5: replayed notices are marked sent."""
    promise(sam)
    promise(sam)
    sam.settle()
    sam.settle()
    with sam.database.transaction() as conn:
        assert notices.counts(conn) == {"pending": 0, "sent": 1, "parked": 0}
        assert conn.execute(text("SELECT attempts FROM unwind.notices")).scalar_one() == 1
