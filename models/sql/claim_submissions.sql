-- Lease due commands: small ones that were never tried, and one other, which is executed alone.
-- Only the first waiting command of each order is due, and none that is paused. The conditions on attempts and payload
-- are those of the indexes ix_submissions_due and ix_submissions_alone.

WITH paused AS (
    SELECT kind, name FROM unwind.pauses WHERE resumed_at IS NULL AND (until IS NULL OR until > :now)
), small AS MATERIALIZED (
    SELECT s.submission_id FROM unwind.submissions AS s
    WHERE s.state = 'waiting' AND (s.attempts = 0 AND octet_length(s.payload) <= 65536) AND s.due_at <= :now
        AND NOT EXISTS (
            SELECT FROM unwind.submissions AS e
            WHERE e.order_id = s.order_id AND e.state = 'waiting' AND e.submission_id < s.submission_id)
        AND NOT EXISTS (
            SELECT FROM paused
            WHERE (kind, name) IN (('task', s.task), ('queue', 'commands'), ('queue', 'submissions')))
    ORDER BY s.submission_id LIMIT :limit FOR UPDATE OF s SKIP LOCKED
), alone AS MATERIALIZED (
    SELECT s.submission_id FROM unwind.submissions AS s
    WHERE s.state = 'waiting' AND NOT (s.attempts = 0 AND octet_length(s.payload) <= 65536) AND s.due_at <= :now
        AND NOT EXISTS (
            SELECT FROM unwind.submissions AS e
            WHERE e.order_id = s.order_id AND e.state = 'waiting' AND e.submission_id < s.submission_id)
        AND NOT EXISTS (
            SELECT FROM paused
            WHERE (kind, name) IN (('task', s.task), ('queue', 'commands'), ('queue', 'submissions')))
    ORDER BY s.submission_id LIMIT 1 FOR UPDATE OF s SKIP LOCKED
)
UPDATE unwind.submissions AS s SET attempts = attempts + 1, due_at = :again
WHERE s.submission_id = ANY (ARRAY(SELECT submission_id FROM small UNION ALL SELECT submission_id FROM alone))
RETURNING
    s.submission_id IN (SELECT submission_id FROM alone) AS alone,
    s.submission_id, s.request_id, s.task, s.payload, s.submitted_at, s.attempts, s.first_error
