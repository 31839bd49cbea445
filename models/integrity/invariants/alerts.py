"""Invariants of alerts: unlocked never early and always in time."""

from __future__ import annotations

from models.integrity.invariants.alert_lifecycle import FILINGS, LIFECYCLES, MATURITY, first_answer
from models.integrity.invariants.invariant import Invariant

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
        SELECT DISTINCT CAST(life.alert_id AS text) FROM ({LIFECYCLES}) life
        JOIN unwind.events u ON u.order_id = life.order_id AND u.seq > life.seq AND u.seq < life.until
            AND u.type = lower(life.kind) || '.unlocked'
        LEFT JOIN LATERAL ({first_answer("life", "u.seq")}) answer ON true
        WHERE u.at < {MATURITY}
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        1,
        "The deadline stored with an alert equals the one computed from its events and terms",
        f"""
        SELECT CAST(life.alert_id AS text) FROM ({LIFECYCLES}) life
        LEFT JOIN LATERAL ({first_answer("life", "life.until")}) answer ON true
        LEFT JOIN LATERAL (
            SELECT CASE e.type WHEN 'npb.penalty_accepted' THEN e.at END AS accepted FROM unwind.events e
            WHERE e.order_id = life.order_id AND e.seq > life.seq AND e.seq < life.until
            AND e.type IN ('npb.penalty_accepted', 'npb.taken_back') ORDER BY e.seq DESC LIMIT 1
        ) penalty ON true
        WHERE life.unlocks_at <> LEAST(penalty.accepted, {MATURITY})
        """,  # noqa: S608 - constants of this package
    ),
    Invariant(
        1,
        "No alert that was answered, accepted or closed in time is marked as unlocked",
        f"""
        SELECT DISTINCT CAST(life.alert_id AS text) FROM ({LIFECYCLES}) life
        LEFT JOIN LATERAL ({first_answer("life", "life.until")}) answer ON true
        WHERE (life.unlocked_at < {MATURITY} AND COALESCE(answer.at < {MATURITY}, true))
            OR life.unlocked_at > life.closed_at OR EXISTS (
            SELECT FROM unwind.events e WHERE e.order_id = life.order_id AND e.seq > life.seq AND e.seq < life.until
            AND e.type = 'npb.penalty_accepted' AND e.at < life.unlocked_at AND NOT EXISTS (
                SELECT FROM unwind.events b WHERE b.order_id = e.order_id AND b.seq > e.seq AND b.seq < life.until
                AND b.type = 'npb.taken_back' AND b.at <= life.unlocked_at))
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
