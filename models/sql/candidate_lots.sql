-- The lots of these items.

SELECT l.*
FROM unwind.lots AS l
JOIN unnest(
    CAST(:seller_id AS text[]), CAST(:item_type AS text[]), CAST(:item_no AS text[]),
    CAST(:color_id AS integer[]), CAST(:new_or_used AS text[]), CAST(:completeness AS text[])
) AS k (seller_id, item_type, item_no, color_id, new_or_used, completeness)
ON (l.seller_id, l.item_type, l.item_no, l.color_id, l.new_or_used)
    = (k.seller_id, k.item_type, k.item_no, k.color_id, k.new_or_used)
    AND l.completeness IS NOT DISTINCT FROM k.completeness
ORDER BY l.lot_id
