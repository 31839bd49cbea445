"""Corruptions: for each invariant a statement that makes it untrue, and the row that the audit then reports."""

from __future__ import annotations

from typing import NamedTuple


class Planting(NamedTuple):
    """`sentence` is how the invariant begins; `named` is the id it must give, `{alert:1}` the alert of order 1."""

    sentence: str
    statement: str
    named: str


EVENT = (
    "INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes) "
    "SELECT order_id, version + 1, last_event_at, '{}', '{}', '{}', status, status, '', '{{}}' "
    "FROM unwind.orders WHERE order_id = {}"
)
NO_TRACE = "DELETE FROM unwind.{} WHERE {}"
SECOND_STRIKE = """
    ALTER TABLE unwind.strikes DROP CONSTRAINT pk_strikes;
    INSERT INTO unwind.strikes SELECT * FROM unwind.strikes WHERE order_id = 1
"""
SECOND_NOTICE = """
    ALTER TABLE unwind.notices DROP CONSTRAINT uq_notices_key;
    INSERT INTO unwind.notices (key, event, order_id, recipient, role, state, email, message_id, created_at, sent_at)
    SELECT key, event, order_id, recipient, role, 'sent', email, message_id, created_at, created_at FROM unwind.notices
    WHERE key = 'order_cancelled:1:4:seller'
"""
SECOND_ANSWER = """
    INSERT INTO unwind.submissions (request_id, task, payload, submitted_by, submitted_at, state, due_at, answer,
        answered_at)
    SELECT request_id, task, '{}', 'x', answered_at, 'answered', answered_at, answer || '{"message": "another"}',
        answered_at
    FROM unwind.requests WHERE request_id = 'cancel-1'
"""
DEAD_SUBMISSION = """
    INSERT INTO unwind.submissions (request_id, task, payload, submitted_by, submitted_at, state, due_at)
    VALUES ('given-up', 'npb.file', '{}', 'x', '2026-04-12Z', 'dead', '2026-04-12Z')
"""
DEAD_JOB = """
    INSERT INTO unwind.dead_jobs (task, arguments, payload_hash, reason, first_error, error, attempts, parked_at)
    VALUES ('npb.file', '{}', sha256(''), 'FAILED', 'x', 'x', 0, '2026-04-12Z')
"""
PENDING = "UPDATE unwind.removals SET state = 'pending', decided_at = NULL WHERE order_id = 9"
CHARGE = "UPDATE unwind.ledger_lines SET {} WHERE order_id = 1 AND kind = 'charge'"
LINE = "UPDATE unwind.order_lines SET {} WHERE order_id = {}"

PLANTINGS = (
    Planting(
        "Every alert was filed by an event", "UPDATE unwind.alerts SET kind = 'NSS' WHERE order_id = 1", "{alert:1}"
    ),
    Planting(
        "Every alert is kept under terms",
        "UPDATE unwind.alerts SET terms_id = 77 WHERE order_id = 1",
        "{alert:1}",
    ),
    Planting(
        "No alert was unlocked before its instant",
        "UPDATE unwind.events SET at = at - interval '1 second' WHERE order_id = 2 AND type = 'npb.unlocked'",
        "{alert:2}",
    ),
    Planting(
        "The instant stored with an alert",
        "UPDATE unwind.alerts SET unlocks_at = unlocks_at - interval '1 second' WHERE order_id = 2",
        "{alert:2}",
    ),
    Planting(
        "An alert has one event", NO_TRACE.format("events", "order_id = 2 AND type = 'npb.unlocked'"), "{alert:2}"
    ),
    Planting(
        "No alert stands as unlocked",
        "UPDATE unwind.alerts SET unlocked_at = penalty_accepted_at + interval '1 second' WHERE order_id = 4",
        "{alert:4}",
    ),
    Planting("No alert stays locked", "UPDATE unwind.alerts SET unlocked_at = NULL WHERE order_id = 2", "{alert:2}"),
    Planting(
        "No order is cancelled through an alert",
        "UPDATE unwind.events SET at = at - interval '2 days' WHERE order_id = 1 AND type = 'orders.cancelled'",
        "1",
    ),
    Planting(
        "No order is cancelled through a penalty",
        NO_TRACE.format("events", "order_id = 4 AND type = 'npb.penalty_accepted'"),
        "4",
    ),
    Planting(
        "No order is cancelled through a cancel request",
        "UPDATE unwind.events SET role = 'buyer' WHERE order_id = 5 AND type = 'ocr.filed'",
        "5",
    ),
    Planting(
        "No order is cancelled for a closed account", NO_TRACE.format("events", "type = 'members.terminated'"), "6"
    ),
    Planting("Only the party to whom", "UPDATE unwind.orders SET cancelled_by = 'b1' WHERE order_id = 1", "1"),
    Planting("A cancelled order has exactly one", EVENT.format("orders.cancelled", "seller", "seller", 1), "1"),
    Planting(
        "A cancelled order has no open alert",
        "UPDATE unwind.alerts SET state = 'open', closed_at = NULL WHERE order_id = 1",
        "1",
    ),
    Planting("A cancelled order has no pending removal", PENDING, "9"),
    Planting("After its cancellation", EVENT.format("orders.status_set", "seller", "seller", 1), "1"),
    Planting(
        "A late payment belongs to a cancelled order",
        "UPDATE unwind.late_payments SET payment_status = 'Sent' WHERE order_id = 5",
        "5",
    ),
    Planting("An order cancelled through an alert is a strike", NO_TRACE.format("strikes", "order_id = 8"), "8"),
    Planting("There is at most one strike", SECOND_STRIKE, "1"),
    Planting(
        "Per seller and item key", "UPDATE unwind.lots SET quantity = quantity + 1 WHERE item_no = 'n3'", "seller n3"
    ),
    Planting("What an order line bought", NO_TRACE.format("stock_moves", "order_id = 3 AND kind = 'sold'"), "3/1"),
    Planting("What a line returned", LINE.format("returned = 9", 1), "1/1"),
    Planting("What was taken out of a line", LINE.format("removed = 3", 7), "7/1"),
    Planting("A cancelled order's items came back", LINE.format("returned = 1", 8), "8/1"),
    Planting("What a cancellation says came back", LINE.format("returned = 9", 1), "1/1"),
    Planting("Per order the lines add up", CHARGE.format("amount = 19.99"), "1"),
    Planting(
        "A cancellation through NRS or NSS has neither",
        "UPDATE unwind.orders SET basis = 'NSS' WHERE order_id = 1",
        "1",
    ),
    Planting("Of every issued bill", CHARGE.format("amount = 19.99"), "seller 2026-03"),
    Planting(
        "Every bill opens",
        "UPDATE unwind.bills SET opening_credit = opening_credit - 1, carried_forward = carried_forward - 1 "
        "WHERE billing_month = '2026-05-01'",
        "seller 2026-05",
    ),
    Planting("No bill is left out", NO_TRACE.format("bills", "billing_month = '2026-05-01'"), "seller 2026-04"),
    Planting(
        "Every line of a closed month", NO_TRACE.format("bills", "billing_month = '2026-03-01'"), "seller 2026-03"
    ),
    Planting("The lines of an issued bill", CHARGE.format("note = 'x'"), "seller 2026-03"),
    Planting("No charge is on a bill", CHARGE.format("charged_month = '2026-04-01'"), "1"),
    Planting(
        "A payment is only of an issued bill",
        "UPDATE unwind.ledger_lines SET excess_credit_month = '2026-03-01' WHERE payment_id = 'p-1'",
        "p-1",
    ),
    Planting(
        "All that was billed",
        "UPDATE unwind.bills SET lines_sum = lines_sum + 1, opening_credit = opening_credit - 1 "
        "WHERE billing_month = '2026-03-01'",
        "seller",
    ),
    Planting(
        "A reset or credit is on the bill",
        "UPDATE unwind.ledger_lines SET billing_month = '2026-05-01' WHERE order_id = 1 AND kind = 'credit'",
        "1",
    ),
    Planting("The events of an order", "UPDATE unwind.orders SET version = version + 1 WHERE order_id = 3", "3"),
    Planting("Every change of status", "UPDATE unwind.orders SET status = 'SHIPPED' WHERE order_id = 3", "3"),
    Planting(
        "The instants of an order's events",
        "UPDATE unwind.events SET at = at - interval '90 days' WHERE order_id = 1 AND seq = 2",
        "1",
    ),
    Planting("Replaying an order's events", "UPDATE unwind.orders SET fee = fee + 1 WHERE order_id = 3", "3"),
    Planting(
        "Replaying an alert's events",
        "UPDATE unwind.alerts SET responded_at = filed_at WHERE order_id = 8",
        "{alert:8}",
    ),
    Planting(
        "Replaying a cancel request's events",
        "UPDATE unwind.ocrs SET reason = 'S_OTHER' WHERE order_id = 5",
        "{ocr:5}",
    ),
    Planting(
        "Every removal request that was decided",
        "UPDATE unwind.removals SET state = 'denied' WHERE order_id = 7",
        "{removal:7}",
    ),
    Planting(
        "Whoever acted on an order",
        "UPDATE unwind.events SET actor = 'b1' WHERE order_id = 2 AND type = 'npb.filed'",
        "2",
    ),
    Planting("Nobody is told twice", SECOND_NOTICE, "order_cancelled:1:4:seller"),
    Planting("One request has one answer", SECOND_ANSWER, "cancel-1"),
    Planting(
        "A cancellation that was answered",
        "UPDATE unwind.events SET request_id = NULL WHERE order_id = 1 AND type = 'orders.cancelled'",
        "cancel-1",
    ),
    Planting(
        "A promise to tell somebody", NO_TRACE.format("notices", "key = 'order_cancelled:1:4:seller'"), "{told:1}"
    ),
    Planting("A promise to reset or credit", NO_TRACE.format("ledger_lines", "key = 'fee:1'"), "{fee:1}"),
    Planting(
        "Of every cancellation both parties", NO_TRACE.format("notices", "key = 'order_cancelled:1:4:seller'"), "1"
    ),
    Planting("Whoever filed an alert is told", NO_TRACE.format("notices", "key LIKE 'npb_unlocked:2:%'"), "2"),
    Planting(
        "A promise that was given up",
        "UPDATE unwind.outbox SET state = 'dead' WHERE key = 'fee:1'",
        "{fee:1}",
    ),
    Planting("A submitted command that was given up", DEAD_SUBMISSION, "given-up"),
    Planting("Every dead job says", DEAD_JOB, "{dead}"),
    Planting(
        "No promise waits longer",
        "UPDATE unwind.outbox SET state = 'due', due_at = '2026-03-01Z' WHERE key = 'fee:1'",
        "{fee:1}",
    ),
    Planting(
        "No promise that waits is put off",
        "UPDATE unwind.outbox SET state = 'due', due_at = '2036-03-01Z' WHERE key = 'fee:1'",
        "{fee:1}",
    ),
)
