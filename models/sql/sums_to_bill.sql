-- The sum of each seller's lines in the month, their hash, and the opening credit; without sellers that have the bill.
-- The hash is of the lines without payments. It is stored at issue and checked by the audit.

SELECT s AS seller_id, sums.lines, sums.lines_sum, sums.lines_hash,
    COALESCE((SELECT b.carried_forward FROM unwind.bills b WHERE b.seller_id = s AND b.billing_month < :month
              ORDER BY b.billing_month DESC LIMIT 1), 0.00)
    - COALESCE((SELECT sum(p.excess) FROM unwind.ledger_lines p
                WHERE p.seller_id = s AND p.excess_credit_month = :month), 0.00) AS opening
FROM unnest(CAST(:sellers AS text[])) s
CROSS JOIN LATERAL (
    SELECT count(*) AS lines, COALESCE(sum(l.amount), 0.00) AS lines_sum,
        encode(sha256(convert_to(coalesce(string_agg(
            concat_ws('|', l.line_id, l.kind, l.amount, l.order_id, l.charged_month, l.credited_month, l.note),
            E'\n' ORDER BY l.line_id), ''), 'UTF8')), 'hex') AS lines_hash
    FROM unwind.ledger_lines l WHERE l.seller_id = s AND l.billing_month = :month AND l.kind <> 'payment'
) sums
WHERE NOT EXISTS (SELECT FROM unwind.bills b WHERE b.seller_id = s AND b.billing_month = :month)
ORDER BY s
