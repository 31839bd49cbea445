"""Invariants of stock: no unit appears or disappears.

Recomputed from the journal, the order lines and the removal requests, independently of the code that returns items.
"""

from __future__ import annotations

from models.integrity.invariants.invariant import Invariant

_KEY = "seller_id, item_type, item_no, color_id, new_or_used, completeness"

STOCK: tuple[Invariant, ...] = (
    Invariant(
        4,
        "Per seller and item key the journal adds up to the units on hand, and no quantity is negative",
        f"""
        SELECT seller_id || ' ' || item_no FROM (
            SELECT {_KEY}, quantity AS on_hand, quantity AS units FROM unwind.lots l
            WHERE [l.seller_id, l.item_no IN items]
            UNION ALL
            SELECT {_KEY}, 0, -delta FROM unwind.stock_moves m WHERE [m.seller_id, m.item_no IN items]
        ) b GROUP BY {_KEY} HAVING sum(units) <> 0 OR min(on_hand) < 0
        """,  # noqa: S608 - constants of this module
    ),
    Invariant(
        4,
        "The units of an order line left the stock exactly once",
        """
        SELECT l.order_id || '/' || l.line_no FROM unwind.order_lines l WHERE [l.order_id IN orders] AND l.quantity <> (
            SELECT COALESCE(-sum(m.delta), 0) FROM unwind.stock_moves m
            WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.kind = 'sold')
        """,
    ),
    Invariant(
        4,
        "The units that a line returned are in the journal once, and no line returns more than it had",
        """
        SELECT l.order_id || '/' || l.line_no FROM unwind.order_lines l CROSS JOIN LATERAL (
            SELECT COALESCE(sum(m.delta), 0) AS units, count(*) AS times FROM unwind.stock_moves m
            WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.kind = 'returned' AND m.removal_id IS NULL
        ) m WHERE [l.order_id IN orders]
        AND (l.returned + l.removed > l.quantity OR l.returned <> m.units OR m.times > 1)
        """,
    ),
    Invariant(
        4,
        "The units removed from a line match its approved removal requests, and no more were returned by them",
        """
        SELECT l.order_id || '/' || l.line_no FROM unwind.order_lines l CROSS JOIN LATERAL (
            SELECT COALESCE(sum(CAST(x ->> 'quantity' AS integer)), 0) AS units,
                COALESCE(sum(CAST(x ->> 'quantity' AS integer)) FILTER (WHERE r.return_items), 0) AS may_return
            FROM unwind.removals r CROSS JOIN LATERAL jsonb_array_elements(r.lines) x
            WHERE r.order_id = l.order_id AND r.state = 'approved' AND CAST(x ->> 'line_no' AS integer) = l.line_no
        ) r CROSS JOIN LATERAL (
            SELECT COALESCE(sum(m.delta), 0) AS units FROM unwind.stock_moves m
            WHERE m.order_id = l.order_id AND m.line_no = l.line_no AND m.removal_id IS NOT NULL
        ) m WHERE [l.order_id IN orders] AND (l.removed <> r.units OR m.units > r.may_return)
        """,
    ),
    Invariant(
        4,
        "A cancelled order's items were returned completely where they may be, and not at all where they may not",
        """
        SELECT l.order_id || '/' || l.line_no FROM unwind.order_lines l JOIN unwind.orders o USING (order_id)
        LEFT JOIN unwind.events c ON c.order_id = o.order_id AND c.type = 'orders.cancelled'
        WHERE [l.order_id IN orders] AND CASE
            WHEN o.status <> 'CANCELLED' OR o.basis IN ('NRS', 'NSS') OR 'members.terminated' = (
                SELECT e.type FROM unwind.events e WHERE e.member_id = o.seller_id AND e.event_id < c.event_id
                AND e.type IN ('members.terminated', 'members.reinstated') ORDER BY e.event_id DESC LIMIT 1)
                THEN l.returned <> 0
            WHEN EXISTS (SELECT FROM unwind.drafts d WHERE d.order_id = o.order_id AND d.state = 'used')
                THEN l.returned > l.quantity - l.removed
            ELSE l.returned <> l.quantity - l.removed END
        """,
    ),
    Invariant(
        4,
        "The units that a cancellation reports as returned are those that each line returned",
        """
        SELECT l.order_id || '/' || l.line_no FROM unwind.order_lines l
        JOIN unwind.events c ON c.order_id = l.order_id AND c.type = 'orders.cancelled'
        WHERE [l.order_id IN orders] AND l.returned <> COALESCE((
            SELECT sum(CAST(x ->> 'returned' AS integer)) FROM jsonb_array_elements(c.changes -> 'returned') x
            WHERE CAST(x ->> 'line_no' AS integer) = l.line_no), 0)
        """,
    ),
)
