-- The lots of items, without the columns that are selected of them.

FROM unwind.lots AS l
JOIN k ON (l.seller_id, l.item_type, l.item_no, l.color_id, l.new_or_used)
        = (k.seller_id, k.item_type, k.item_no, k.color_id, k.new_or_used)
    AND l.completeness IS NOT DISTINCT FROM k.completeness
ORDER BY l.lot_id
