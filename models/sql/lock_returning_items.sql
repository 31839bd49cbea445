-- Lock the items of the orders' lines, in ascending order, by the same hash of each key as lock_items.sql.
-- An ON CONFLICT that changes nothing still locks the row, even one that another transaction has just committed.

INSERT INTO unwind.item_locks AS held (item)
SELECT DISTINCT hashtextextended(concat_ws(chr(31),
    l.snapshot ->> 'seller_id', l.snapshot #>> '{item,type}', l.snapshot #>> '{item,no}',
    CAST(l.snapshot ->> 'color_id' AS integer), l.snapshot ->> 'new_or_used',
    COALESCE(l.snapshot ->> 'completeness', '')), 0)
FROM unwind.order_lines AS l WHERE l.order_id = ANY(CAST(:ids AS bigint[]))
ORDER BY 1
ON CONFLICT (item) DO UPDATE SET item = excluded.item WHERE false
