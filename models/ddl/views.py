"""The public SQL views `unwind.v_*`: their columns, which are stable, and their queries, for readers of the database.

A view may gain a column at its end and never loses or redefines one; `contract/views/` records them. No view reads the
clock: the client compares its columns with a time of its choice, so that a simulation shows what a live system would.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import TableClause, column, table


@dataclass(frozen=True, slots=True)
class View:
    name: str
    description: str
    columns: tuple[tuple[str, tuple[str, ...], str], ...]
    query: str
    private: bool = False
    """Whether it shows a part of tables that its readers may not read."""
    version: int = 1

    def as_table(self) -> TableClause:
        return table(self.name, *(column(name) for name, _, _ in self.columns), schema="unwind")

    def statements(self) -> tuple[str, str]:
        comment = f"Version {self.version}. {self.description}".replace("'", "''")
        # A private one reads with its owner's rights; functions of its readers cannot see rows that it filters out.
        rights = "security_barrier = true" if self.private else "security_invoker = true"
        return (
            f"CREATE OR REPLACE VIEW unwind.{self.name} WITH ({rights}) AS {self.query}",
            f"COMMENT ON VIEW unwind.{self.name} IS '{comment}'",
        )


_VIEW_INTEGER, _VIEW_TEXT, _VIEW_INSTANT = ("integer",), ("string",), ("string",)
_VIEW_INTEGER_OR_NULL, _VIEW_TEXT_OR_NULL = ("integer", "null"), ("string", "null")

V_ORDER_TIMELINE = View(
    "v_order_timeline",
    "One row per event of an order, numbered from 1 without a gap.",
    (
        ("order_id", _VIEW_INTEGER, "the order"),
        ("seq", _VIEW_INTEGER, "number of the event within its order"),
        ("at", _VIEW_INSTANT, "when it took effect"),
        ("event", _VIEW_TEXT, "its type, a stable name such as npb.filed"),
        ("actor", _VIEW_TEXT, "who caused it: a member's id, staff by name, marketplace, system or automation"),
        ("role", _VIEW_TEXT, "buyer, seller, staff or system"),
        ("from_status", _VIEW_TEXT_OR_NULL, "the order's status before; null for its first event"),
        ("to_status", _VIEW_TEXT_OR_NULL, "the order's status after"),
        ("note", _VIEW_TEXT, "the reason, in a sentence"),
        ("basis", _VIEW_TEXT_OR_NULL, "the ground of a cancellation"),
        ("request_id", _VIEW_TEXT_OR_NULL, "the request id of the command"),
    ),
    """
    SELECT e.order_id, e.seq, e.at, e.type AS event, e.actor, e.role, e.from_status, e.to_status, e.note,
           e.changes #>> '{order,basis}' AS basis, e.request_id
    FROM unwind.events AS e WHERE e.order_id IS NOT NULL
    """,
)

V_UNLOCK_FORECAST = View(
    "v_unlock_forecast",
    "One row per open alert that does not allow cancelling yet, with the time at which it will.",
    (
        ("alert_id", _VIEW_INTEGER, "the alert"),
        ("order_id", _VIEW_INTEGER, "the order"),
        ("kind", _VIEW_TEXT, "NPB, NRS or NSS"),
        ("order_status", _VIEW_TEXT, "the order's status now"),
        ("seller_id", _VIEW_TEXT, "the order's seller"),
        ("buyer_id", _VIEW_TEXT, "the order's buyer"),
        ("filed_at", _VIEW_INSTANT, "when it was filed"),
        ("responded_at", _VIEW_TEXT_OR_NULL, "when the other party answered first"),
        ("unlocks_at", _VIEW_INSTANT, "when the alert starts to allow cancelling the order; in the past: overdue"),
        ("unlocks_hour", _VIEW_INSTANT, "unlocks_at, rounded down to the hour in UTC"),
    ),
    """
    SELECT a.alert_id, a.order_id, a.kind, o.status AS order_status, o.seller_id, o.buyer_id, a.filed_at,
           a.responded_at, a.unlocks_at, date_trunc('hour', a.unlocks_at, 'UTC') AS unlocks_hour
    FROM unwind.alerts AS a JOIN unwind.orders AS o USING (order_id)
    WHERE a.state = 'open' AND a.unlocked_at IS NULL AND NOT a.penalty_stands
    """,
)

V_FEE_CREDIT = View(
    "v_fee_credit",
    "One row per cancelled order with what happened to its fee, and one per manual credit by staff.",
    (
        ("seller_id", _VIEW_TEXT, "the seller who is credited"),
        ("order_id", _VIEW_INTEGER_OR_NULL, "the order; null for a manual credit without one"),
        ("basis", _VIEW_TEXT_OR_NULL, "the ground of the cancellation; null for a manual credit"),
        ("cancelled_at", _VIEW_TEXT_OR_NULL, "when the order was cancelled"),
        ("kind", _VIEW_TEXT, "reset (same month), credit (a later bill), none (NRS, NSS), undecided, manual_credit"),
        ("state", _VIEW_TEXT, "posted, promised (within seconds), given_up (staff must act), stays (no credit is due)"),
        ("charged", _VIEW_TEXT_OR_NULL, "the fee charged, USD"),
        ("charged_month", _VIEW_TEXT_OR_NULL, "the month whose bill has the charge, such as 2026-03"),
        ("amount", _VIEW_TEXT, "the amount credited, USD, negative like the line on the bill"),
        ("bill_month", _VIEW_TEXT_OR_NULL, "the month whose bill shows it, such as 2026-04"),
        ("bill_issued_at", _VIEW_TEXT_OR_NULL, "when that bill was issued; null while it is open"),
        ("bill_issued_on", _VIEW_TEXT_OR_NULL, "the day on which it was issued, in the billing zone"),
        ("bill_due_on", _VIEW_TEXT_OR_NULL, "the day on which it is due"),
        ("posted_at", _VIEW_TEXT_OR_NULL, "when the ledger line was written"),
        ("note", _VIEW_TEXT_OR_NULL, "the text of the line on the bill"),
    ),
    # The event of the cancellation has the decision and the ledger the result, since the outbox row may be pruned.
    """
    SELECT o.seller_id, o.order_id, o.basis, o.cancelled_at, f.kind,
           CASE WHEN l.line_id IS NOT NULL THEN 'posted' WHEN f.kind = 'none' THEN 'stays'
                WHEN p.state = 'dead' THEN 'given_up' WHEN p.state = 'due' THEN 'promised' ELSE 'posted' END AS state,
           CAST(o.fee AS text) AS charged, to_char(o.fee_month, 'YYYY-MM') AS charged_month,
           CAST(coalesce(l.amount, f.amount) AS text) AS amount,
           coalesce(to_char(l.billing_month, 'YYYY-MM'), f.bill) AS bill_month,
           b.issued_at AS bill_issued_at, b.issued_on AS bill_issued_on, b.due_on AS bill_due_on,
           coalesce(l.at, p.done_at) AS posted_at, l.note
    FROM unwind.orders AS o
    JOIN unwind.events AS e ON e.order_id = o.order_id AND e.type = 'orders.cancelled'
    CROSS JOIN LATERAL (
        SELECT e.changes #>> '{fee,kind}' AS kind, CAST(e.changes #>> '{fee,amount}' AS numeric(12, 2)) AS amount,
               e.changes #>> '{fee,bill}' AS bill
    ) AS f
    LEFT JOIN unwind.ledger_lines AS l ON l.order_id = o.order_id AND l.kind IN ('reset', 'credit')
    LEFT JOIN unwind.outbox AS p ON p.key = 'fee:' || o.order_id
    LEFT JOIN unwind.bills AS b ON b.seller_id = o.seller_id
        AND b.billing_month = coalesce(l.billing_month, to_date(f.bill, 'YYYY-MM'))
    WHERE o.status = 'CANCELLED'
    UNION ALL
    SELECT l.seller_id, l.order_id, NULL, NULL, 'manual_credit', 'posted', NULL, NULL, CAST(l.amount AS text),
           to_char(l.billing_month, 'YYYY-MM'), b.issued_at, b.issued_on, b.due_on, l.at, l.note
    FROM unwind.ledger_lines AS l
    LEFT JOIN unwind.bills AS b ON b.seller_id = l.seller_id AND b.billing_month = l.billing_month
    WHERE l.kind = 'manual_credit'
    """,
    private=True,
)

V_REQUEST_STATUS = View(
    "v_request_status",
    "One row per command with its state and answer, without arguments and effects.",
    (
        ("request_id", _VIEW_TEXT, "the idempotency key"),
        ("task", _VIEW_TEXT, "the task, such as orders.cancel"),
        ("order_id", _VIEW_INTEGER_OR_NULL, "the order of the command"),
        ("door", _VIEW_TEXT, "the interface through which it was submitted: sql or message"),
        ("state", _VIEW_TEXT, "waiting, answered or dead (parked after failing; ./run jobs dead)"),
        ("outcome", _VIEW_TEXT_OR_NULL, "done, refused, invalid or conflict"),
        ("code", _VIEW_TEXT_OR_NULL, "the code of a refusal"),
        ("message", _VIEW_TEXT_OR_NULL, "the sentence of the answer"),
        ("submitted_at", _VIEW_TEXT_OR_NULL, "when it was submitted by SQL"),
        ("answered_at", _VIEW_TEXT_OR_NULL, "when it was answered or parked"),
    ),
    """
    SELECT a.request_id, a.task, a.order_id, CASE WHEN a.submitted_at IS NULL THEN 'message' ELSE 'sql' END AS door,
           a.state, a.outcome, a.code, a.answer ->> 'message' AS message, a.submitted_at, a.answered_at
    FROM unwind.command_answers AS a
    UNION ALL
    SELECT d.request_id, d.task, d.order_id, 'message', 'dead', NULL, NULL, NULL, NULL, d.parked_at
    FROM (
        SELECT DISTINCT ON (1) coalesce(j.request_id, j.message_id) AS request_id, j.task, j.order_id, j.parked_at
        FROM unwind.dead_jobs AS j WHERE j.replayed_at IS NULL AND j.outbox_id IS NULL
        ORDER BY 1, j.dead_job_id DESC
    ) AS d
    WHERE d.request_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM unwind.requests AS r WHERE r.request_id = d.request_id)
      AND NOT EXISTS (SELECT FROM unwind.submissions AS s WHERE s.request_id = d.request_id)
    """,
    private=True,
)

V_SWEEP_HISTORY = View(
    "v_sweep_history",
    "One row per hour in which a sweep found something or was late; a sweep without such hours has one row.",
    (
        ("sweep", _VIEW_TEXT, "the name of the sweep's task"),
        ("last_ran_at", _VIEW_INSTANT, "when it last ended"),
        ("found_ever", _VIEW_INTEGER, "how much it has found in total"),
        ("hour", _VIEW_TEXT_OR_NULL, "the hour, in UTC"),
        ("found", _VIEW_INTEGER_OR_NULL, "how much it found in that hour"),
        ("runs", _VIEW_INTEGER_OR_NULL, "runs in that hour that found something or were late"),
        ("longest_gap_seconds", _VIEW_INTEGER_OR_NULL, "the longest time without a run, if over three minutes"),
    ),
    """
    SELECT s.name AS sweep, s.ran_at AS last_ran_at, s.found_ever, h.hour, h.found, h.runs,
           CAST(extract(epoch FROM h.longest_gap) AS bigint) AS longest_gap_seconds
    FROM unwind.sweeps AS s LEFT JOIN unwind.sweep_hours AS h USING (name)
    """,
)

V_LATE_PAYMENT = View(
    "v_late_payment",
    "One row per payment recorded after its order was cancelled.",
    (
        ("order_id", _VIEW_INTEGER, "the cancelled order"),
        ("seller_id", _VIEW_TEXT, "the seller, who has to send the money back"),
        ("buyer_id", _VIEW_TEXT, "the buyer, who paid"),
        ("payment_status", _VIEW_TEXT, "the last status reported by the payment service"),
        ("recorded_at", _VIEW_INSTANT, "when the payment was first recorded"),
        (
            "settled_at",
            _VIEW_TEXT_OR_NULL,
            "when the seller or staff reported that the money was sent back; null while open",
        ),
        ("settled_by", _VIEW_TEXT_OR_NULL, "the member or staff who reported it"),
    ),
    """
    SELECT p.order_id, o.seller_id, o.buyer_id, p.payment_status, p.recorded_at, p.settled_at, p.settled_by
    FROM unwind.late_payments AS p JOIN unwind.orders AS o USING (order_id)
    """,
)

V_AUTOMATION_FORECAST = View(
    "v_automation_forecast",
    "One row per automatic act to come if nothing about its order changes.",
    (
        ("order_id", _VIEW_INTEGER, "the order"),
        (
            "act",
            _VIEW_TEXT,
            "the command that automation makes in the seller's name: npb.file, orders.cancel or ocr.decline",
        ),
        ("at", _VIEW_INSTANT, "when it is made; in the past: overdue"),
        ("seller_id", _VIEW_TEXT, "the order's seller, whose setting it is"),
        ("buyer_id", _VIEW_TEXT, "the order's buyer"),
    ),
    """
    SELECT o.order_id, 'orders.cancel' AS act, a.cancels_at AS at, o.seller_id, o.buyer_id
    FROM unwind.alerts AS a JOIN unwind.orders AS o USING (order_id)
    WHERE a.state = 'open' AND a.cancels_at IS NOT NULL
    UNION ALL
    SELECT o.order_id, 'npb.file', o.files_npb_at, o.seller_id, o.buyer_id
    FROM unwind.orders AS o WHERE o.files_npb_at IS NOT NULL
    UNION ALL
    SELECT o.order_id, CASE WHEN r.agrees_at IS NULL THEN 'ocr.decline' ELSE 'orders.cancel' END,
           COALESCE(r.agrees_at, r.declines_at), o.seller_id, o.buyer_id
    FROM unwind.ocrs AS r JOIN unwind.orders AS o USING (order_id)
    WHERE r.state = 'open' AND COALESCE(r.agrees_at, r.declines_at) IS NOT NULL
    """,
)

VIEWS = (
    V_AUTOMATION_FORECAST,
    V_ORDER_TIMELINE,
    V_UNLOCK_FORECAST,
    V_FEE_CREDIT,
    V_REQUEST_STATUS,
    V_SWEEP_HISTORY,
    V_LATE_PAYMENT,
)

DDL: tuple[str, ...] = tuple(statement for view in VIEWS for statement in view.statements())
