-- Lock every lot that the orders' lines could return to, by id.

SELECT c.lot_id
FROM unwind.lots AS c
JOIN (
    SELECT DISTINCT
        l.snapshot ->> 'seller_id' AS seller_id, l.snapshot #>> '{item,type}' AS item_type,
        l.snapshot #>> '{item,no}' AS item_no, CAST(l.snapshot ->> 'color_id' AS integer) AS color_id,
        l.snapshot ->> 'new_or_used' AS new_or_used, l.snapshot ->> 'completeness' AS completeness
    FROM unwind.order_lines AS l WHERE l.order_id = ANY(CAST(:ids AS bigint[]))
) AS k
ON (c.seller_id, c.item_type, c.item_no, c.color_id, c.new_or_used)
    = (k.seller_id, k.item_type, k.item_no, k.color_id, k.new_or_used)
    AND c.completeness IS NOT DISTINCT FROM k.completeness
ORDER BY c.lot_id
FOR UPDATE OF c
