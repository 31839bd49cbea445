-- The due commands: the first waiting one of each order, and none that is paused.

SELECT s.submission_id
FROM unwind.submissions AS s
WHERE s.state = 'waiting' AND s.due_at <= :now
    AND NOT EXISTS (
        SELECT FROM unwind.submissions AS earlier
        WHERE earlier.order_id = s.order_id AND earlier.state = 'waiting'
            AND earlier.submission_id < s.submission_id)
    AND NOT EXISTS (
        SELECT FROM unwind.pauses AS p
        WHERE p.resumed_at IS NULL AND (p.until IS NULL OR p.until > :now)
            AND (p.kind, p.name) IN (('task', s.task), ('queue', 'commands'), ('queue', 'submissions')))
