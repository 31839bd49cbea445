-- Items by their keys, as arrays.

SELECT *
FROM unnest(
    CAST(:seller_id AS text[]), CAST(:item_type AS text[]), CAST(:item_no AS text[]),
    CAST(:color_id AS integer[]), CAST(:new_or_used AS text[]), CAST(:completeness AS text[])
) AS k (seller_id, item_type, item_no, color_id, new_or_used, completeness)
