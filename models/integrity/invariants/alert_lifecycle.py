"""SQL for the lifecycle of an alert and when it matures, from events and dated terms alone.

Durations are added in seconds, so that no session's time zone can make a day of 23 hours.
"""

from __future__ import annotations

FILINGS = "('npb.filed', 'nrs.filed', 'nss.filed')"
REMOVALS = "('npb.removed', 'nrs.removed', 'nss.removed')"
UNLOCKS = "('npb.unlocked', 'nrs.unlocked', 'nss.unlocked')"
"""Sweeps write these events; a command that took effect earlier may follow them."""
ANSWERS = "('npb.responded', 'npb.taken_back')"


def _duration(name: str, otherwise: str) -> str:
    return (
        f"extract(epoch FROM CAST(COALESCE(t.settings ->> '{name}', '{otherwise}') AS interval)) * interval '1 second'"
    )


def terms_sql(terms_id: str) -> str:
    return f"""
        SELECT {_duration("NPB_UNLOCK_NO_RESPONSE", "168h")} AS unanswered,
            {_duration("NPB_UNLOCK_RESPONSE", "336h")} AS answered,
            {_duration("SELLER_ALERT_UNLOCK", "336h")} AS sellers,
            COALESCE(t.settings ->> 'NPB_LATE_RESPONSE', 'sticky') = 'relock' AS relocks
        FROM (VALUES (1)) AS always LEFT JOIN unwind.terms t ON t.terms_id = {terms_id}
    """  # noqa: S608 - names of columns


def first_answer(life: str, before: str) -> str:
    """Return SQL for the buyer's first answer to an alert before the event numbered `before`."""
    return f"""
        SELECT e.at FROM unwind.events e WHERE e.order_id = {life}.order_id AND e.seq > {life}.seq AND e.seq < {before}
        AND e.type IN {ANSWERS} ORDER BY e.seq LIMIT 1
    """  # noqa: S608 - names of columns


MATURITY = """
    CASE WHEN life.kind <> 'NPB' THEN life.began + life.sellers
    WHEN answer.at < life.began + life.unanswered OR answer.at IS NOT NULL AND life.relocks
        THEN life.began + life.answered
    ELSE life.began + life.unanswered END
"""
"""SQL for the instant from which the alert `life` with its first `answer` allows cancelling, without a penalty."""

LIFECYCLES = f"""
    SELECT a.*, f.seq, f.at AS began, f.until, h.* FROM (
        SELECT x.*, row_number() OVER (PARTITION BY x.order_id ORDER BY x.alert_id) AS nth
        FROM unwind.alerts x WHERE [x.order_id IN orders]
    ) AS a JOIN (
        SELECT e.order_id, e.seq, e.at, e.type, row_number() OVER w AS nth, lead(e.seq, 1, 2147483647) OVER w AS until
        FROM unwind.events e WHERE e.type IN {FILINGS} AND [e.order_id IN orders]
        WINDOW w AS (PARTITION BY e.order_id ORDER BY e.seq)
    ) AS f ON f.order_id = a.order_id AND f.nth = a.nth
    CROSS JOIN LATERAL ({terms_sql("a.terms_id")}) AS h
"""  # noqa: S608 - constants of this module
"""Each alert with its filing among the events, the next one's number, and the terms it was filed under."""
