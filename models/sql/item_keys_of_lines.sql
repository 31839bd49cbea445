-- The item of each of the orders' lines.

SELECT
    l.snapshot ->> 'seller_id' AS seller_id, l.snapshot #>> '{item,type}' AS item_type,
    l.snapshot #>> '{item,no}' AS item_no, CAST(l.snapshot ->> 'color_id' AS integer) AS color_id,
    l.snapshot ->> 'new_or_used' AS new_or_used, l.snapshot ->> 'completeness' AS completeness
FROM unwind.order_lines AS l WHERE l.order_id = ANY(CAST(:ids AS bigint[]))
