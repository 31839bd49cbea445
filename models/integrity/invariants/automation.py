"""Invariants of automation: deadlines follow from the facts, automatic acts from the settings in force at the time."""

from __future__ import annotations

from models.integrity.invariants.invariant import Invariant

# Hours, so that no session's time zone can make a day of 23 hours.
_SETTING_DAYS = "CAST({setting} AS integer) * interval '24 hours'"
_SETTING = "m.automation #>> '{cancel_after_unlock,value}'"
_SETTING_THEN = "s.changes #>> '{automation,cancel_after_unlock,value}'"
_FILE_SETTING = "m.automation #>> '{file_npb_after,value}'"
_FILE_SETTING_THEN = "s.changes #>> '{automation,file_npb_after,value}'"

_HOURS = "CAST({setting} AS integer) * interval '1 hour'"
_AGREE_SETTING = "m.automation #>> '{agree_to_requests_within,value}'"
_AGREE_SETTING_THEN = "s.changes #>> '{automation,agree_to_requests_within,value}'"
_AGREED_FROM = "r.previous_status IN ('PENDING', 'UPDATED', 'PROCESSING', 'READY')"
_SILENCE = """
    SELECT extract(epoch FROM CAST(t.settings #>> '{OCR_SILENCE,agree_after}' AS interval))
            * interval '1 second' AS agrees,
        extract(epoch FROM CAST(t.settings #>> '{OCR_SILENCE,decline_after}' AS interval))
            * interval '1 second' AS declines
    FROM (VALUES (1)) AS always LEFT JOIN unwind.terms t ON t.terms_id = r.terms_id
"""
_UNPAID = "o.payment_status IN ('None', 'Pending', 'Sent')"

AUTOMATION: tuple[Invariant, ...] = (
    Invariant(
        1,
        "The stored time of an automatic cancellation follows from alert, payment, hold and settings",
        f"""
        SELECT CAST(a.alert_id AS text) FROM unwind.alerts a JOIN unwind.orders o USING (order_id)
        JOIN unwind.members m ON m.member_id = o.seller_id
        WHERE [a.order_id IN orders] AND a.cancels_at IS DISTINCT FROM CASE
            WHEN a.state = 'open' AND a.kind = 'NPB' AND o.payment_status = 'None' AND m.terminated_at IS NULL
                AND NOT coalesce(m.automation -> 'exclude_buyers' ? o.buyer_id, false)
                AND (o.held_at IS NULL OR o.held_until IS NOT NULL) AND {_SETTING} IS NOT NULL
            THEN GREATEST(o.held_until, CASE WHEN a.penalty_stands THEN a.penalty_accepted_at ELSE a.unlocks_at END
                + {_SETTING_DAYS.format(setting=_SETTING)}) END
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        1,
        "The stored time of an automatic alert follows from the order, its payment, hold and settings",
        f"""
        SELECT CAST(o.order_id AS text) FROM unwind.orders o JOIN unwind.members m ON m.member_id = o.seller_id
        WHERE [o.order_id IN orders] AND (o.files_npb_at IS NULL) <> NOT coalesce(
            o.status NOT IN ('NPB', 'NPX', 'NRS', 'NSS', 'CANCELLED') AND o.payment_status = 'None'
            AND m.terminated_at IS NULL AND NOT m.automation -> 'exclude_buyers' ? o.buyer_id
            AND (o.held_at IS NULL OR o.held_until IS NOT NULL) AND {_FILE_SETTING} IS NOT NULL
            AND NOT EXISTS (SELECT FROM unwind.events f WHERE f.order_id = o.order_id AND f.type = 'npb.filed'
                AND f.at >= o.order_date), false)
        OR o.files_npb_at < GREATEST(o.held_until, o.order_date + {_SETTING_DAYS.format(setting=_FILE_SETTING)})
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        1,
        "Every automatic alert was filed unpaid and in time, under a setting that was in force",
        f"""
        SELECT CAST(e.order_id AS text) FROM unwind.events e JOIN unwind.orders o USING (order_id)
        CROSS JOIN LATERAL (
            SELECT jsonb_object_agg(change.key, change.value ORDER BY x.seq) AS folded
            FROM unwind.events x CROSS JOIN LATERAL jsonb_each(x.changes -> 'order') change
            WHERE x.order_id = e.order_id AND x.seq < e.seq AND jsonb_typeof(x.changes -> 'order') = 'object'
        ) before
        LEFT JOIN LATERAL (
            SELECT x.changes FROM unwind.events x WHERE x.member_id = o.seller_id
            AND x.type = 'sellers.automation_set' AND x.event_id < e.event_id ORDER BY x.event_id DESC LIMIT 1
        ) s ON true
        WHERE [e.order_id IN orders] AND e.type = 'npb.filed' AND e.actor = 'automation' AND NOT coalesce(
            folded ->> 'payment_status' = 'None' AND NOT s.changes #> '{{automation,exclude_buyers}}' ? o.buyer_id
            AND e.at >= CAST(folded ->> 'order_date' AS timestamptz)
                + {_SETTING_DAYS.format(setting=_FILE_SETTING_THEN)}, false)
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        1,
        "Every automatic cancellation came at or after its time, unpaid, under a setting that was in force",
        f"""
        SELECT CAST(e.order_id AS text) FROM unwind.events e JOIN unwind.orders o USING (order_id)
        LEFT JOIN LATERAL (
            SELECT a.* FROM unwind.alerts a WHERE a.order_id = e.order_id AND a.closed_at = e.at
            ORDER BY a.alert_id DESC LIMIT 1
        ) a ON true
        LEFT JOIN LATERAL (
            SELECT x.changes FROM unwind.events x WHERE x.member_id = o.seller_id
            AND x.type = 'sellers.automation_set' AND x.event_id < e.event_id ORDER BY x.event_id DESC LIMIT 1
        ) s ON true
        WHERE [e.order_id IN orders] AND e.type = 'orders.cancelled' AND e.actor = 'automation'
        AND o.basis <> 'OCR_BUYER' AND NOT coalesce(
            o.payment_status = 'None' AND (o.held_at IS NULL OR o.held_until <= e.at)
            AND NOT s.changes #> '{{automation,exclude_buyers}}' ? o.buyer_id
            AND e.at >= CASE WHEN a.penalty_stands THEN a.penalty_accepted_at ELSE a.unlocks_at END
                + {_SETTING_DAYS.format(setting=_SETTING_THEN)}, false)
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        1,
        "The stored time of an automatic answer to a request follows from the request, its payment, hold and settings",
        f"""
        SELECT CAST(r.ocr_id AS text) FROM unwind.ocrs r JOIN unwind.orders o USING (order_id)
        JOIN unwind.members m ON m.member_id = o.seller_id
        CROSS JOIN LATERAL ({_SILENCE}) t
        CROSS JOIN LATERAL (
            SELECT r.state = 'open' AND r.filed_by = 'buyer' AND m.terminated_at IS NULL
                AND NOT coalesce(m.automation -> 'exclude_buyers' ? o.buyer_id, false)
                AND (o.held_at IS NULL OR o.held_until IS NOT NULL) AS touched,
            coalesce({_UNPAID} AND {_AGREED_FROM}
                AND r.filed_at <= o.order_date + {_HOURS.format(setting=_AGREE_SETTING)}, false) AS at_once
        ) c
        WHERE [r.order_id IN orders] AND (r.agrees_at, r.declines_at) IS DISTINCT FROM (
            CASE WHEN touched AND at_once THEN GREATEST(o.held_until, r.filed_at)
                WHEN touched AND {_UNPAID} AND t.agrees IS NOT NULL
                THEN GREATEST(o.held_until, r.filed_at + t.agrees) END,
            CASE WHEN touched AND NOT at_once AND t.declines IS NOT NULL
                THEN GREATEST(o.held_until, r.filed_at + t.declines) END)
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        1,
        "Every automatic answer to a request came at or after its time, under a setting or term that was in force",
        f"""
        SELECT CAST(e.order_id AS text) FROM unwind.events e JOIN unwind.orders o USING (order_id)
        LEFT JOIN LATERAL (
            SELECT r.* FROM unwind.ocrs r WHERE r.order_id = e.order_id AND r.closed_at = e.at
            ORDER BY r.ocr_id DESC LIMIT 1
        ) r ON true
        LEFT JOIN LATERAL (
            SELECT x.changes FROM unwind.events x WHERE x.member_id = o.seller_id
            AND x.type = 'sellers.automation_set' AND x.event_id < e.event_id ORDER BY x.event_id DESC LIMIT 1
        ) s ON true
        CROSS JOIN LATERAL ({_SILENCE}) t
        WHERE [e.order_id IN orders] AND e.actor = 'automation'
        AND (e.type = 'ocr.declined' OR e.type = 'orders.cancelled' AND o.basis = 'OCR_BUYER')
        AND (r.ocr_id IS NULL OR r.filed_by <> 'buyer'
            OR coalesce(s.changes #> '{{automation,exclude_buyers}}' ? o.buyer_id, false)
            OR NOT coalesce(CASE WHEN e.type = 'ocr.declined' THEN e.at >= r.filed_at + t.declines
                ELSE {_UNPAID} AND (o.held_at IS NULL OR o.held_until <= e.at)
                    AND (e.at >= r.filed_at + t.agrees OR {_AGREED_FROM}
                        AND r.filed_at <= o.order_date + {_HOURS.format(setting=_AGREE_SETTING_THEN)}) END, false))
        """,  # noqa: S608 - constants of this module
    ),
)

IN_TIME: tuple[Invariant, ...] = (
    Invariant(
        1,
        "No automatic act is overdue by more than a minute",
        """
        SELECT CAST(order_id AS text) FROM unwind.alerts WHERE state = 'open'
        AND cancels_at < CAST(:now AS timestamptz) - interval '1 minute'
        UNION ALL
        SELECT CAST(order_id AS text) FROM unwind.orders
        WHERE files_npb_at < CAST(:now AS timestamptz) - interval '1 minute'
        UNION ALL
        SELECT CAST(order_id AS text) FROM unwind.ocrs WHERE state = 'open'
        AND LEAST(agrees_at, declines_at) < CAST(:now AS timestamptz) - interval '1 minute'
        """,
    ),
)
