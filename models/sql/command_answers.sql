-- The answers of all commands, whichever interface they came by.

CREATE OR REPLACE VIEW unwind.command_answers WITH (security_barrier = true) AS
SELECT s.request_id, s.task, s.order_id, s.state, s.answer ->> 'outcome' AS outcome, s.answer ->> 'code' AS code,
       s.answer, s.submitted_at, s.answered_at
FROM unwind.submissions AS s
UNION ALL
SELECT r.request_id, r.task, r.order_id, 'answered', r.outcome, r.answer ->> 'code', r.answer, NULL, r.answered_at
FROM unwind.requests AS r
WHERE NOT EXISTS (SELECT FROM unwind.submissions AS s WHERE s.request_id = r.request_id)
