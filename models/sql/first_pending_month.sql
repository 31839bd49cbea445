-- The earliest month after the closed ones with lines, an opening credit or a due credit that is on no issued bill.
-- Each part walks an index by month and stops at the first row, however much is to be billed.

SELECT min(month) FROM (
    (SELECT l.billing_month AS month FROM unwind.ledger_lines l
     WHERE l.billing_month > :closed AND l.kind <> 'payment' AND NOT EXISTS (
         SELECT FROM unwind.bills b WHERE b.seller_id = l.seller_id AND b.billing_month = l.billing_month)
     ORDER BY l.billing_month LIMIT 1)
    UNION ALL
    (SELECT (b.billing_month + interval '1 month')::date FROM unwind.bills b
     WHERE b.billing_month >= :closed AND b.carried_forward <> 0 AND NOT EXISTS (
         SELECT FROM unwind.bills n WHERE n.seller_id = b.seller_id AND n.billing_month > b.billing_month)
     ORDER BY b.billing_month LIMIT 1)
    UNION ALL
    (SELECT l.excess_credit_month FROM unwind.ledger_lines l
     WHERE l.excess_credit_month > :closed AND NOT EXISTS (
         SELECT FROM unwind.bills b WHERE b.seller_id = l.seller_id AND b.billing_month = l.excess_credit_month)
     ORDER BY l.excess_credit_month LIMIT 1)
    UNION ALL
    SELECT min((o.payload ->> 'month') || '-01')::date FROM unwind.outbox o
    WHERE o.state = 'due' AND o.task = 'credits.post_to_next_invoice' AND o.payload ->> 'month' IS NOT NULL
) pending
