-- Return what remains of cancelled orders to stock, as policies.returns.plan_return does for one order.
-- orders, returns: for each order, in the order of the commands, whether its items return.
-- release: whether a lot that selling out moved to a stockroom goes back on sale. Then nothing is written for it.

WITH line AS MATERIALIZED (
    -- The lines with the item that was sold. Parts of superlots and custom items need a lot of their own.
    SELECT
        requested.position, l.order_id, l.line_no, l.lot_id AS source, l.snapshot,
        l.snapshot ->> 'seller_id' AS seller_id, l.snapshot #>> '{item,type}' AS item_type,
        l.snapshot #>> '{item,no}' AS item_no, CAST(l.snapshot ->> 'color_id' AS integer) AS color_id,
        l.snapshot ->> 'new_or_used' AS new_or_used, l.snapshot ->> 'completeness' AS completeness,
        CASE WHEN requested.returns THEN GREATEST(l.quantity - l.removed - l.returned, 0) ELSE 0 END AS units,
        COALESCE(CAST(l.snapshot ->> 'bind_id' AS bigint), 0) <> 0
            OR l.snapshot #>> '{item,no}' !~ '\S' AS needs_own_lot
    FROM unnest(CAST(:orders AS bigint[]), CAST(:returns AS boolean[]))
        WITH ORDINALITY AS requested (order_id, returns, position)
    JOIN unwind.order_lines AS l ON l.order_id = requested.order_id
),
with_target AS MATERIALIZED (
    -- The existing lot that takes the line: the one it was sold from (f), else one for sale before a stockroom (t).
    SELECT
        line.*, COALESCE(f.lot_id, t.lot_id) AS target, COALESCE(f.is_stock_room, t.is_stock_room) AS in_stockroom,
        :release AND COALESCE(
            f.is_stock_room AND f.auto_stockroom, t.is_stock_room AND t.auto_stockroom) AS released
    FROM line
    LEFT JOIN unwind.lots AS f ON f.lot_id = line.source
        AND (f.seller_id, f.item_type, f.item_no, f.color_id, f.new_or_used)
            = (line.seller_id, line.item_type, line.item_no, line.color_id, line.new_or_used)
        AND f.completeness IS NOT DISTINCT FROM line.completeness
        AND f.bind_id = 0 AND f.reserved_for IS NULL AND line.units > 0 AND NOT line.needs_own_lot
    LEFT JOIN LATERAL (
        SELECT c.* FROM unwind.lots AS c
        WHERE f.lot_id IS NULL AND line.units > 0 AND NOT line.needs_own_lot
            AND (c.seller_id, c.item_type, c.item_no, c.color_id, c.new_or_used)
                = (line.seller_id, line.item_type, line.item_no, line.color_id, line.new_or_used)
            AND c.completeness IS NOT DISTINCT FROM line.completeness
            AND c.bind_id = 0 AND c.reserved_for IS NULL
        ORDER BY c.is_stock_room, c.lot_id LIMIT 1
    ) AS t ON true
),
without_target AS (
    -- Lines without a lot, numbered within those that share a new one. If a lot would be released, no lot id is
    -- allocated: a sequence does not roll back, and a dry run shows the next id.
    SELECT *, row_number() OVER (
        PARTITION BY seller_id, item_type, item_no, color_id, new_or_used, completeness,
            needs_own_lot, CASE WHEN needs_own_lot THEN (position, line_no) END
        ORDER BY position, line_no) AS nth
    FROM with_target
    WHERE units > 0 AND target IS NULL AND NOT EXISTS (SELECT FROM with_target WHERE released)
),
new_lot AS MATERIALIZED (
    SELECT nextval('unwind.own_lot_ids') AS lot_id, head.*
    FROM (SELECT * FROM without_target WHERE nth = 1 ORDER BY position, line_no) AS head
),
assigned AS MATERIALIZED (
    SELECT
        p.*, COALESCE(p.target, c.lot_id) AS lot_id,
        CASE
            WHEN p.target IS NOT NULL AND p.in_stockroom THEN 'RETURNED_TO_STOCKROOM'
            WHEN c.position = p.position AND c.line_no = p.line_no
                AND (p.needs_own_lot OR p.snapshot ->> 'reserved_for' IS NOT NULL) THEN 'NEEDS_REVIEW'
            WHEN CAST(c.snapshot ->> 'is_stock_room' AS boolean) THEN 'RETURNED_TO_STOCKROOM'
        END AS note
    FROM with_target AS p
    LEFT JOIN new_lot AS c ON p.units > 0 AND p.target IS NULL
        AND (c.seller_id, c.item_type, c.item_no, c.color_id, c.new_or_used)
            = (p.seller_id, p.item_type, p.item_no, p.color_id, p.new_or_used)
        AND c.completeness IS NOT DISTINCT FROM p.completeness
        AND CASE
            WHEN p.needs_own_lot THEN c.position = p.position AND c.line_no = p.line_no
            ELSE NOT c.needs_own_lot
        END
),
lot_units AS MATERIALIZED (
    SELECT lot_id, CAST(sum(units) AS integer) AS units FROM assigned WHERE lot_id > 0 GROUP BY lot_id
),
inserted AS (
    -- A new lot has the values of its first line; the defaults are for fields that a snapshot lacks.
    INSERT INTO unwind.lots
    SELECT r.*
    FROM new_lot AS m
    JOIN lot_units AS a USING (lot_id),
    jsonb_populate_record(
        NULL::unwind.lots,
        '{"description": "", "remarks": "", "bulk": 1, "is_retain": false, "is_stock_room": false, "sale_rate": 0}'
        || jsonb_strip_nulls(m.snapshot)
        || jsonb_build_object(
            'lot_id', lot_id, 'item_type', item_type, 'item_no', item_no, 'quantity', a.units, 'bind_id', 0,
            'auto_stockroom', false, 'reserved_for', NULL)
    ) AS r
),
increased AS (
    UPDATE unwind.lots AS t SET quantity = t.quantity + a.units FROM lot_units AS a WHERE t.lot_id = a.lot_id
),
journaled AS (
    INSERT INTO unwind.stock_moves (
        seller_id, item_type, item_no, color_id, new_or_used, completeness, lot_id, delta, kind, order_id, line_no, at)
    SELECT
        seller_id, item_type, item_no, color_id, new_or_used, completeness, lot_id, units, 'returned', order_id,
        line_no, :now
    FROM assigned WHERE lot_id > 0 ORDER BY position, line_no
),
updated AS (
    UPDATE unwind.order_lines AS l SET returned = s.units, returned_to_lot = s.lot_id, note = s.note
    FROM assigned AS s WHERE l.order_id = s.order_id AND l.line_no = s.line_no AND s.lot_id > 0
)
SELECT
    order_id,
    CAST(json_agg(json_build_object('line_no', line_no, 'returned', units, 'lot_id', lot_id, 'note', note)
        ORDER BY line_no) AS text) AS lines,
    count(*) FILTER (WHERE units > 0) AS number,
    CAST(sum(units) AS bigint) AS units,
    bool_or(released) AS released
FROM assigned GROUP BY order_id
