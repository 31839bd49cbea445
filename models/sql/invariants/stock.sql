-- Invariants of stock: no unit appears or disappears. Recomputed from the journal, the order lines and the removal
-- requests, independently of the code that returns items.

-- 4. Per seller and item key the journal adds up to the units on hand, and no quantity is negative
WITH stored AS NOT MATERIALIZED (
    SELECT seller_id, item_type, item_no, color_id, new_or_used, completeness, quantity AS on_hand, quantity AS units
    FROM unwind.lots
    UNION ALL
    SELECT seller_id, item_type, item_no, color_id, new_or_used, completeness, 0, -delta FROM unwind.stock_moves
),
checked AS NOT MATERIALIZED (
    SELECT * FROM stored WHERE :item_sellers IS NULL
    UNION ALL
    SELECT stored.*
    FROM unnest(:item_sellers, :item_nos) AS item (seller_id, item_no) JOIN stored USING (seller_id, item_no)
    WHERE :item_sellers IS NOT NULL
)
SELECT seller_id || ' ' || item_no AS id
FROM checked
GROUP BY seller_id, item_type, item_no, color_id, new_or_used, completeness
HAVING sum(units) <> 0 OR min(on_hand) < 0;

-- 4. The units of an order line left the stock exactly once
SELECT l.order_id || '/' || l.line_no AS id
FROM unwind.order_lines AS l
WHERE (:orders IS NULL OR l.order_id = ANY(:orders)) AND l.quantity <> (
    SELECT COALESCE(-sum(m.delta), 0) FROM unwind.stock_moves AS m
    WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.kind = 'sold');

-- 4. The units that a line returned are in the journal once, and no line returns more than it had
SELECT l.order_id || '/' || l.line_no AS id
FROM unwind.order_lines AS l
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(m.delta), 0) AS units, count(*) AS times FROM unwind.stock_moves AS m
    WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.kind = 'returned' AND m.removal_id IS NULL
) AS m
WHERE (:orders IS NULL OR l.order_id = ANY(:orders))
    AND (l.returned + l.removed > l.quantity OR l.returned <> m.units OR m.times > 1);

-- 4. The units removed from a line match its approved removal requests, and no more were returned by them
SELECT l.order_id || '/' || l.line_no AS id
FROM unwind.order_lines AS l
CROSS JOIN LATERAL (
    SELECT
        COALESCE(sum(CAST(x ->> 'quantity' AS integer)), 0) AS units,
        COALESCE(sum(CAST(x ->> 'quantity' AS integer)) FILTER (WHERE r.return_items), 0) AS may_return
    FROM unwind.removals AS r CROSS JOIN LATERAL jsonb_array_elements(r.lines) AS x
    WHERE r.order_id = l.order_id AND r.state = 'approved' AND CAST(x ->> 'line_no' AS integer) = l.line_no
) AS r
CROSS JOIN LATERAL (
    SELECT COALESCE(sum(m.delta), 0) AS units FROM unwind.stock_moves AS m
    WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.removal_id IS NOT NULL
) AS m
WHERE (:orders IS NULL OR l.order_id = ANY(:orders)) AND (l.removed <> r.units OR m.units > r.may_return);

-- 4. A cancelled order's items were returned completely where they may be, and not at all where they may not
SELECT l.order_id || '/' || l.line_no AS id
FROM unwind.order_lines AS l
JOIN unwind.orders AS o USING (order_id)
LEFT JOIN unwind.events AS c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
WHERE (:orders IS NULL OR l.order_id = ANY(:orders)) AND CASE
    WHEN o.status <> 'CANCELLED' OR o.basis IN ('NRS', 'NSS') OR 'members.terminated' = (
        SELECT e.type FROM unwind.events AS e
        WHERE e.member_id = o.seller_id AND e.event_id < c.event_id
            AND e.type IN ('members.terminated', 'members.reinstated')
        ORDER BY e.event_id DESC LIMIT 1)
    THEN l.returned <> 0
    WHEN EXISTS (SELECT FROM unwind.drafts AS d WHERE d.order_id = o.order_id AND d.state = 'used')
    THEN l.returned > l.quantity - l.removed
    ELSE l.returned <> l.quantity - l.removed
END;

-- 4. The units that a cancellation reports as returned are those that each line returned
SELECT l.order_id || '/' || l.line_no AS id
FROM unwind.order_lines AS l
JOIN unwind.events AS c ON c.order_id = l.order_id AND c.type = 'orders.cancelled'
WHERE (:orders IS NULL OR l.order_id = ANY(:orders)) AND l.returned <> COALESCE((
    SELECT sum(CAST(x ->> 'returned' AS integer)) FROM jsonb_array_elements(c.changes -> 'returned') AS x
    WHERE CAST(x ->> 'line_no' AS integer) = l.line_no), 0);
