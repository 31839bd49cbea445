"""Invariants of alerts: unlocked never early and always in time, by events and dated terms alone.

Durations are added in seconds, so that no session's time zone can make a day of 23 hours.
"""

from __future__ import annotations

from models.integrity.invariants.invariant import Invariant

FILINGS = "('npb.filed', 'nrs.filed', 'nss.filed')"


REMOVALS = "('npb.removed', 'nrs.removed', 'nss.removed')"


UNLOCKS = "('npb.unlocked', 'nrs.unlocked', 'nss.unlocked')"
"""Sweeps write these events; a command that took effect earlier may follow them."""


ANSWERS = "('npb.responded', 'npb.taken_back')"


def _duration(name: str, otherwise: str) -> str:
    return (
        f"extract(epoch FROM CAST(COALESCE(t.settings ->> '{name}', '{otherwise}') AS interval)) * interval '1 second'"
    )


def alert_terms_sql(terms_id: str) -> str:
    return f"""
        SELECT {_duration("NPB_UNLOCK_NO_RESPONSE", "168h")} AS unanswered,
            {_duration("NPB_UNLOCK_RESPONSE", "336h")} AS answered,
            {_duration("SELLER_ALERT_UNLOCK", "336h")} AS sellers,
            COALESCE(t.settings ->> 'NPB_LATE_RESPONSE', 'sticky') = 'relock' AS relocks
        FROM (VALUES (1)) AS always LEFT JOIN unwind.terms t ON t.terms_id = {terms_id}
    """  # noqa: S608 - names of columns


def first_answer(lifecycle: str, before: str) -> str:
    """Return SQL for the buyer's first answer to an alert, and its last extension, before the event `before`."""
    return f"""
        SELECT min(e.at) FILTER (WHERE e.type IN {ANSWERS}) AS at,
            max(CAST(e.changes #>> '{{alert,extended_until}}' AS timestamptz))
                FILTER (WHERE e.type = 'npb.extended') AS extended_until
        FROM unwind.events e WHERE e.order_id = {lifecycle}.order_id AND e.seq > {lifecycle}.seq AND e.seq < {before}
    """  # noqa: S608 - names of columns


MATURITY = """
    GREATEST(answer.extended_until, CASE WHEN lifecycle.kind <> 'NPB' THEN lifecycle.began + lifecycle.sellers
        WHEN answer.at < lifecycle.began + lifecycle.unanswered OR answer.at IS NOT NULL AND lifecycle.relocks
            THEN lifecycle.began + lifecycle.answered
        ELSE lifecycle.began + lifecycle.unanswered END)
"""
"""SQL for the instant from which the alert `lifecycle` with its first `answer` allows cancelling, without a penalty."""


LIFECYCLES = f"""
    SELECT a.*, f.seq, f.at AS began, f.until, h.* FROM (
        SELECT x.*, row_number() OVER (PARTITION BY x.order_id ORDER BY x.alert_id) AS nth
        FROM unwind.alerts x WHERE [x.order_id IN orders]
    ) AS a JOIN (
        SELECT e.order_id, e.seq, e.at, e.type, row_number() OVER w AS nth, lead(e.seq, 1, 2147483647) OVER w AS until
        FROM unwind.events e WHERE e.type IN {FILINGS} AND [e.order_id IN orders]
        WINDOW w AS (PARTITION BY e.order_id ORDER BY e.seq)
    ) AS f ON f.order_id = a.order_id AND f.nth = a.nth
    CROSS JOIN LATERAL ({alert_terms_sql("a.terms_id")}) AS h
"""  # noqa: S608 - constants of this module
"""Each alert with its filing among the events, the next one's number, and the terms it was filed under."""

ALERTS: tuple[Invariant, ...] = (
    Invariant(
        1,
        "Every alert has a filing event of its order at the same instant",
        f"""
        SELECT COALESCE(CAST(a.alert_id AS text), 'order ' || e.order_id) FROM (
            SELECT x.*, row_number() OVER (PARTITION BY x.order_id ORDER BY x.alert_id) AS nth
            FROM unwind.alerts x WHERE [x.order_id IN orders]
        ) a FULL JOIN (
            SELECT x.*, row_number() OVER (PARTITION BY x.order_id ORDER BY x.seq) AS nth
            FROM unwind.events x WHERE x.type IN {FILINGS} AND [x.order_id IN orders]
        ) e ON e.order_id = a.order_id AND e.nth = a.nth
        WHERE (a.filed_at, lower(a.kind) || '.filed') IS DISTINCT FROM (e.at, e.type)
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        1,
        "Every alert has the terms that were in force when it was filed, or that began before its filing was recorded",
        """
        SELECT CAST(a.alert_id AS text) FROM unwind.alerts a LEFT JOIN unwind.terms t USING (terms_id)
        WHERE [a.order_id IN orders] AND (a.terms_id <> 0 AND t.terms_id IS NULL
            OR t.valid_from > a.filed_at + interval '24 hours'
            OR EXISTS (SELECT FROM unwind.terms n WHERE n.valid_from < a.filed_at
                       AND (t.terms_id IS NULL OR (n.valid_from, n.terms_id) > (t.valid_from, t.terms_id))))
        """,
    ),
    Invariant(
        1,
        "No alert was unlocked before its deadline, computed from when it was filed and first answered",
        f"""
        SELECT DISTINCT CAST(lifecycle.alert_id AS text) FROM ({LIFECYCLES}) lifecycle
        JOIN unwind.events u ON u.order_id = lifecycle.order_id AND u.seq > lifecycle.seq AND u.seq < lifecycle.until
            AND u.type = lower(lifecycle.kind) || '.unlocked'
        LEFT JOIN LATERAL ({first_answer("lifecycle", "u.seq")}) answer ON true
        WHERE u.at < {MATURITY}
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        1,
        "The deadline stored with an alert equals the one computed from its events and terms",
        f"""
        SELECT CAST(lifecycle.alert_id AS text) FROM ({LIFECYCLES}) lifecycle
        LEFT JOIN LATERAL ({first_answer("lifecycle", "lifecycle.until")}) answer ON true
        LEFT JOIN LATERAL (
            SELECT CASE e.type WHEN 'npb.penalty_accepted' THEN e.at END AS accepted FROM unwind.events e
            WHERE e.order_id = lifecycle.order_id AND e.seq > lifecycle.seq AND e.seq < lifecycle.until
            AND e.type IN ('npb.penalty_accepted', 'npb.taken_back') ORDER BY e.seq DESC LIMIT 1
        ) penalty ON true
        WHERE lifecycle.unlocks_at <> LEAST(penalty.accepted, {MATURITY})
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        1,
        "No alert answered, accepted or closed in time is marked as unlocked",
        f"""
        SELECT DISTINCT CAST(lifecycle.alert_id AS text) FROM ({LIFECYCLES}) lifecycle
        LEFT JOIN LATERAL ({first_answer("lifecycle", "lifecycle.until")}) answer ON true
        WHERE (lifecycle.unlocked_at < {MATURITY} AND COALESCE(answer.at < {MATURITY}, true))
            OR lifecycle.unlocked_at > lifecycle.closed_at OR EXISTS (
            SELECT FROM unwind.events e
            WHERE e.order_id = lifecycle.order_id AND e.seq > lifecycle.seq AND e.seq < lifecycle.until
            AND e.type = 'npb.penalty_accepted' AND e.at < lifecycle.unlocked_at AND NOT EXISTS (
                SELECT FROM unwind.events b WHERE b.order_id = e.order_id AND b.seq > e.seq AND b.seq < lifecycle.until
                AND b.type = 'npb.taken_back' AND b.at <= lifecycle.unlocked_at))
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        1,
        "Every unlocked alert has exactly one unlock event at that instant",
        """
        SELECT CAST(a.alert_id AS text) FROM unwind.alerts a
        WHERE [a.order_id IN orders] AND a.unlocked_at IS NOT NULL AND 1 <> (
            SELECT count(*) FROM unwind.events e WHERE e.order_id = a.order_id AND e.at = a.unlocked_at
            AND e.type = lower(a.kind) || '.unlocked')
        """,
    ),
)

IN_TIME: tuple[Invariant, ...] = (
    Invariant(
        1,
        "No alert stays locked for more than a minute after its deadline",
        """
        SELECT CAST(alert_id AS text) FROM unwind.alerts WHERE state = 'open' AND unlocked_at IS NULL
        AND NOT penalty_stands AND unlocks_at < CAST(:now AS timestamptz) - interval '1 minute'
        """,
    ),
)
