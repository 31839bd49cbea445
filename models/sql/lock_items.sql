-- Lock items by the hash of their keys, in ascending order: a lot that does not exist yet has no row to lock.
-- An ON CONFLICT that changes nothing still locks the row, even one that another transaction has just committed.

INSERT INTO unwind.item_locks AS held (item)
SELECT DISTINCT hashtextextended(concat_ws(chr(31),
    k.seller_id, k.item_type, k.item_no, k.color_id, k.new_or_used, COALESCE(k.completeness, '')), 0)
FROM k
ORDER BY 1
ON CONFLICT (item) DO UPDATE SET item = excluded.item WHERE false
