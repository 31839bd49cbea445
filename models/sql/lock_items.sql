-- Lock items by the hash of their keys, in ascending order: a lot that does not exist yet has no row to lock.
-- An ON CONFLICT that changes nothing still locks the row, even one that another transaction has just committed.

INSERT INTO unwind.item_locks AS held (item)
SELECT DISTINCT hashtextextended(concat_ws(chr(31),
    k.seller_id, k.item_type, k.item_no, k.color_id, k.new_or_used, COALESCE(k.completeness, '')), 0)
FROM unnest(
    CAST(:seller_id AS text[]), CAST(:item_type AS text[]), CAST(:item_no AS text[]),
    CAST(:color_id AS integer[]), CAST(:new_or_used AS text[]), CAST(:completeness AS text[])
) AS k (seller_id, item_type, item_no, color_id, new_or_used, completeness)
ORDER BY 1
ON CONFLICT (item) DO UPDATE SET item = excluded.item WHERE false
