-- Record the run of a sweep, and in its hour how much it found or how long it was late.
-- A sweep that found nothing and has recorded so within the interval `often` writes no row.

WITH recorded AS (
    INSERT INTO unwind.sweep_hours AS h (name, hour, runs, found, longest_gap)
    SELECT :name, date_trunc('hour', CAST(:now AS timestamptz), 'UTC'), 1, :found, g.gap
    FROM (SELECT max(:now - ran_at) FILTER (WHERE :now - ran_at > :late) AS gap
          FROM unwind.sweeps WHERE name = :name) AS g
    WHERE :found > 0 OR g.gap IS NOT NULL
    ON CONFLICT (name, hour) DO UPDATE SET runs = h.runs + 1, found = h.found + excluded.found,
        longest_gap = GREATEST(h.longest_gap, excluded.longest_gap)
)
INSERT INTO unwind.sweeps AS s (name, ran_at, found, found_ever)
SELECT :name, :now, :found, :found
WHERE :found > 0 OR NOT EXISTS (
    SELECT FROM unwind.sweeps l WHERE l.name = :name AND l.found = 0
    AND l.ran_at BETWEEN CAST(:now AS timestamptz) - CAST(:often AS interval) AND :now)
ON CONFLICT (name) DO UPDATE SET ran_at = :now, found = :found, found_ever = s.found_ever + :found
