"""Corruptions: for each invariant a statement that makes it untrue, and the row that the audit then reports."""

from __future__ import annotations

from typing import NamedTuple


class Corruption(NamedTuple):
    """`sentence` is the beginning of the invariant's sentence; `reported_id` is the id that it reports (`{alert:1}`:
    the alert of order 1)."""

    sentence: str
    statement: str
    reported_id: str


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
    SELECT key, event, order_id, recipient, role, 'sent', email, message_id || '2', created_at, created_at
    FROM unwind.notices
    WHERE key = 'order_cancelled:1:4:seller'
"""
SECOND_ANSWER = """
    INSERT INTO unwind.submissions (request_id, task, payload, submitted_by, submitted_at, state, due_at, answer,
        answered_at)
    SELECT request_id, task, '{}', 'x', answered_at, 'answered', answered_at, answer || '{"message": "another"}',
        answered_at
    FROM unwind.requests WHERE request_id = 'cancel-1'
"""
SECOND_REQUEST = """
    ALTER TABLE unwind.requests DROP CONSTRAINT pk_requests;
    INSERT INTO unwind.requests SELECT * FROM unwind.requests WHERE request_id = 'cancel-1'
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

CORRUPTIONS = (
    Corruption(
        "Every alert has a filing event", "UPDATE unwind.alerts SET kind = 'NSS' WHERE order_id = 1", "{alert:1}"
    ),
    Corruption(
        "Every alert has the terms that",
        "UPDATE unwind.alerts SET terms_id = 77 WHERE order_id = 1",
        "{alert:1}",
    ),
    Corruption(
        "No alert was unlocked before its",
        "UPDATE unwind.events SET at = at - interval '1 second' WHERE order_id = 2 AND type = 'npb.unlocked'",
        "{alert:2}",
    ),
    Corruption(
        "The deadline stored with an alert",
        "UPDATE unwind.alerts SET unlocks_at = unlocks_at - interval '1 second' WHERE order_id = 2",
        "{alert:2}",
    ),
    Corruption(
        "Every unlocked alert has exactly one",
        NO_TRACE.format("events", "order_id = 2 AND type = 'npb.unlocked'"),
        "{alert:2}",
    ),
    Corruption(
        "No alert answered, accepted",
        "UPDATE unwind.alerts SET unlocked_at = penalty_accepted_at + interval '1 second' WHERE order_id = 4",
        "{alert:4}",
    ),
    Corruption(
        "No alert stays locked for more", "UPDATE unwind.alerts SET unlocked_at = NULL WHERE order_id = 2", "{alert:2}"
    ),
    Corruption(
        "The stored time of an automatic cancellation",
        "UPDATE unwind.alerts SET cancels_at = '2030-01-01Z' WHERE order_id = 1",
        "{alert:1}",
    ),
    Corruption(
        "The stored time of an automatic alert",
        "UPDATE unwind.orders SET files_npb_at = '2030-01-01Z' WHERE order_id = 1",
        "1",
    ),
    Corruption(
        "Every automatic alert was filed",
        "UPDATE unwind.events SET actor = 'automation' WHERE order_id = 1 AND type = 'npb.filed'",
        "1",
    ),
    Corruption(
        "Every automatic cancellation came",
        "UPDATE unwind.events SET actor = 'automation' WHERE order_id = 1 AND type = 'orders.cancelled'",
        "1",
    ),
    Corruption(
        "The stored time of an automatic answer",
        "UPDATE unwind.ocrs SET agrees_at = '2030-01-01Z' WHERE order_id = 5",
        "{ocr:5}",
    ),
    Corruption(
        "Every automatic answer to a request",
        "UPDATE unwind.events SET actor = 'automation' WHERE order_id = 5 AND type = 'orders.cancelled'; "
        "UPDATE unwind.orders SET basis = 'OCR_BUYER' WHERE order_id = 5",
        "5",
    ),
    Corruption("No automatic act is overdue", "UPDATE unwind.alerts SET cancels_at = filed_at WHERE order_id = 2", "2"),
    Corruption(
        "No order was cancelled through an",
        "UPDATE unwind.events SET at = at - interval '2 days' WHERE order_id = 1 AND type = 'orders.cancelled'",
        "1",
    ),
    Corruption(
        "No order was cancelled through a penalty",
        NO_TRACE.format("events", "order_id = 4 AND type = 'npb.penalty_accepted'"),
        "4",
    ),
    Corruption(
        "No order was cancelled through a cancel",
        "UPDATE unwind.events SET role = 'buyer' WHERE order_id = 5 AND type = 'ocr.filed'",
        "5",
    ),
    Corruption("No order was cancelled for a", NO_TRACE.format("events", "type = 'members.terminated'"), "6"),
    Corruption(
        "Every order was cancelled by the", "UPDATE unwind.orders SET cancelled_by = 'b1' WHERE order_id = 1", "1"
    ),
    Corruption("A cancelled order has exactly one", EVENT.format("orders.cancelled", "seller", "seller", 1), "1"),
    Corruption(
        "A cancelled order has no open alert",
        "UPDATE unwind.alerts SET state = 'open', closed_at = NULL WHERE order_id = 1",
        "1",
    ),
    Corruption("A cancelled order has no pending", PENDING, "9"),
    Corruption("After a cancellation, only events of", EVENT.format("orders.status_set", "seller", "seller", 1), "1"),
    Corruption(
        "A late payment belongs to a",
        "UPDATE unwind.late_payments SET payment_status = 'Sent' WHERE order_id = 5",
        "5",
    ),
    Corruption("A cancellation through an alert gives", NO_TRACE.format("strikes", "order_id = 8"), "8"),
    Corruption("An order has at most one", SECOND_STRIKE, "1"),
    Corruption(
        "Per seller and item key the",
        "UPDATE unwind.lots SET quantity = quantity + 1 WHERE item_no = 'n3'",
        "seller n3",
    ),
    Corruption("The units of an order line", NO_TRACE.format("stock_moves", "order_id = 3 AND kind = 'sold'"), "3/1"),
    Corruption("The units that a line returned", LINE.format("returned = 9", 1), "1/1"),
    Corruption("The units removed from a line", LINE.format("removed = 3", 7), "7/1"),
    Corruption("A cancelled order's items were returned", LINE.format("returned = 1", 8), "8/1"),
    Corruption("The units that a cancellation reports", LINE.format("returned = 9", 1), "1/1"),
    Corruption("Per order the lines add up", CHARGE.format("amount = 19.99"), "1"),
    Corruption(
        "A cancellation through NRS or NSS has neither",
        "UPDATE unwind.orders SET basis = 'NSS' WHERE order_id = 1",
        "1",
    ),
    Corruption("On every issued bill, lines and", CHARGE.format("amount = 19.99"), "seller 2026-03"),
    Corruption(
        "Every bill opens with the amount",
        "UPDATE unwind.bills SET opening_credit = opening_credit - 1, carried_forward = carried_forward - 1 "
        "WHERE billing_month = '2026-05-01'",
        "seller 2026-05",
    ),
    Corruption(
        "No month is skipped: a bill", NO_TRACE.format("bills", "billing_month = '2026-05-01'"), "seller 2026-04"
    ),
    Corruption(
        "Every line of a closed month", NO_TRACE.format("bills", "billing_month = '2026-03-01'"), "seller 2026-03"
    ),
    Corruption("The lines of an issued bill", CHARGE.format("note = 'x'"), "seller 2026-03"),
    Corruption("No charge is on an earlier", CHARGE.format("charged_month = '2026-04-01'"), "1"),
    Corruption(
        "A payment's excess is at most",
        "UPDATE unwind.ledger_lines SET excess_credit_month = '2026-03-01' WHERE payment_id = 'p-1'",
        "p-1",
    ),
    Corruption(
        "A seller's billed and unbilled lines",
        "UPDATE unwind.bills SET lines_sum = lines_sum + 1, opening_credit = opening_credit - 1 "
        "WHERE billing_month = '2026-03-01'",
        "seller",
    ),
    Corruption(
        "A reset or credit is on",
        "UPDATE unwind.ledger_lines SET billing_month = '2026-05-01' WHERE order_id = 1 AND kind = 'credit'",
        "1",
    ),
    Corruption(
        "An order's events are numbered from", "UPDATE unwind.orders SET version = version + 1 WHERE order_id = 3", "3"
    ),
    Corruption(
        "Every event starts from the status", "UPDATE unwind.orders SET status = 'SHIPPED' WHERE order_id = 3", "3"
    ),
    Corruption(
        "The events of an order are",
        "UPDATE unwind.events SET at = at - interval '90 days' WHERE order_id = 1 AND seq = 2",
        "1",
    ),
    Corruption("Replaying an order's events", "UPDATE unwind.orders SET fee = fee + 1 WHERE order_id = 3", "3"),
    Corruption(
        "Replaying an alert's events",
        "UPDATE unwind.alerts SET responded_at = filed_at WHERE order_id = 8",
        "{alert:8}",
    ),
    Corruption(
        "Replaying a cancel request's events",
        "UPDATE unwind.ocrs SET reason = 'S_OTHER' WHERE order_id = 5",
        "{ocr:5}",
    ),
    Corruption(
        "Every decided removal request has an",
        "UPDATE unwind.removals SET state = 'denied' WHERE order_id = 7",
        "{removal:7}",
    ),
    Corruption(
        "Every event of an order names",
        "UPDATE unwind.events SET actor = 'b1' WHERE order_id = 2 AND type = 'npb.filed'",
        "2",
    ),
    Corruption("No member is notified twice of", SECOND_NOTICE, "order_cancelled:1:4:seller"),
    Corruption("Every request has one answer, the", SECOND_ANSWER, "cancel-1"),
    Corruption("Every request has one answer, the", SECOND_REQUEST, "cancel-1"),
    Corruption(
        "Every cancellation answered as",
        "UPDATE unwind.events SET request_id = NULL WHERE order_id = 1 AND type = 'orders.cancelled'",
        "cancel-1",
    ),
    Corruption(
        "Every completed outbox message to notify",
        NO_TRACE.format("notices", "key = 'order_cancelled:1:4:seller'"),
        "{notice:1}",
    ),
    Corruption("Every completed outbox message to reset", NO_TRACE.format("ledger_lines", "key = 'fee:1'"), "{fee:1}"),
    Corruption(
        "Both parties of a cancelled order", NO_TRACE.format("notices", "key = 'order_cancelled:1:4:seller'"), "1"
    ),
    Corruption("The filer of an unlocked alert", NO_TRACE.format("notices", "key LIKE 'npb_unlocked:2:%'"), "2"),
    Corruption(
        "Every dead outbox message is among",
        "UPDATE unwind.outbox SET state = 'dead' WHERE key = 'fee:1'",
        "{fee:1}",
    ),
    Corruption("Every dead submission is among the", DEAD_SUBMISSION, "given-up"),
    Corruption("Every dead job has its task", DEAD_JOB, "{dead}"),
    Corruption(
        "No outbox message is overdue by",
        "UPDATE unwind.outbox SET state = 'due', due_at = '2026-03-01Z' WHERE key = 'fee:1'",
        "{fee:1}",
    ),
    Corruption(
        "No outbox message is postponed by",
        "UPDATE unwind.outbox SET state = 'due', due_at = '2036-03-01Z' WHERE key = 'fee:1'",
        "{fee:1}",
    ),
)
