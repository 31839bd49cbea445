-- Sellers with lines, an opening credit or (:with_postings) a due posting in the month, and no bill or held bill.

SELECT seller_id
FROM (
    SELECT l.seller_id FROM unwind.ledger_lines AS l WHERE l.billing_month = :month AND l.kind <> 'payment'
    UNION
    SELECT b.seller_id FROM unwind.bills AS b WHERE b.billing_month = :before AND b.carried_forward <> 0
    UNION
    SELECT l.seller_id FROM unwind.ledger_lines AS l WHERE l.excess_credit_month = :month
    UNION
    SELECT o.payload ->> 'seller_id' FROM unwind.outbox AS o
    WHERE CAST(:with_postings AS boolean)
        AND o.state = 'due' AND o.task = 'credits.post_to_next_invoice' AND o.payload ->> 'month' <= :written_month
) AS candidates
WHERE seller_id > :after
    AND NOT EXISTS (
        SELECT FROM unwind.bills AS b WHERE b.seller_id = candidates.seller_id AND b.billing_month = :month)
    AND NOT EXISTS (SELECT FROM unwind.held_bills AS h WHERE h.seller_id = candidates.seller_id)
ORDER BY seller_id LIMIT :limit
