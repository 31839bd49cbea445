"""An example of every email: its event, the role of its reader, and its facts."""

from __future__ import annotations

from typing import Any

UNLOCKS, LATER = "2026-04-11T10:00:00Z", "2026-04-18T10:00:00Z"
COMMENT = "I lost my job and cannot pay this month.\nI am very sorry."
FEE = {"kind": "credit", "amount": "-20.00", "bill": "2026-04"}
AUTOMATIC = {
    "basis": "NPB",
    "by": "seller",
    "returns": True,
    "lines_returned": 2,
    "units_returned": 31,
    "strike": True,
    "automation": {"setting": "cancel_after_unlock", "value": 3, "set_at": "2026-03-01T10:00:00Z"},
}
AGREED: dict[str, Any] = {
    "basis": "OCR_BUYER",
    "by": "seller",
    "returns": True,
    "lines_returned": 1,
    "units_returned": 10,
    "strike": False,
    "automation": {"setting": "agree_to_requests_within", "value": 24, "set_at": "2026-03-01T10:00:00Z"},
}
SILENCE = {"automation": {"setting": "OCR_SILENCE", "value": "agree_after 5d", "set_at": "2026-04-06T10:00:00Z"}}

FACTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "N01-ocr_filed": ("ocr_filed", "seller", {"reason": "B_SELLER_NO_STOCK", "comment": "You wrote that it is gone."}),
    "N02-ocr_filed_by_seller": ("ocr_filed_by_seller", "buyer", {"reason": "S_MUTUAL", "comment": "As we agreed."}),
    "N03-ocr_declined": ("ocr_declined", "buyer", {"status": "READY"}),
    "N04-npb_filed": (
        "npb_filed",
        "buyer",
        {"unlocks_at": UNLOCKS, "unlocks_at_if_answered": LATER, "comment": "No payment, no answer."},
    ),
    "N05-npb_responded": ("npb_responded", "seller", {"unlocks_at": LATER, "comment": COMMENT}),
    "N06-npx_accepted": ("npx_accepted", "seller", {}),
    "N06-npx_taken_back": ("npx_taken_back", "seller", {"unlocks_at": LATER}),
    "N07-npb_unlocked": ("npb_unlocked", "seller", {"kind": "NPB", "unlocks_at": UNLOCKS}),
    "N08-seller_alert_filed-nrs": (
        "seller_alert_filed",
        "seller",
        {"kind": "NRS", "grounds": None, "comment": "Four mails without an answer.", "unlocks_at": LATER},
    ),
    "N08-seller_alert_filed-nss": (
        "seller_alert_filed",
        "seller",
        {"kind": "NSS", "grounds": "INCOMPLETE", "comment": "Half of it is missing.", "unlocks_at": LATER},
    ),
    "N08-seller_alert_responded": (
        "seller_alert_responded",
        "buyer",
        {"kind": "NSS", "comment": "It was posted yesterday.", "unlocks_at": LATER},
    ),
    "N09-seller_alert_unlocked": ("seller_alert_unlocked", "buyer", {"kind": "NRS", "unlocks_at": LATER}),
    "N10-alert_removed-npb": (
        "alert_removed",
        "buyer",
        {"kind": "NPB", "comment": "Thank you!", "by": "seller", "was_completed": False},
    ),
    "N10-alert_removed-nss": (
        "alert_removed",
        "seller",
        {"kind": "NSS", "comment": None, "by": "staff", "was_completed": False},
    ),
    "N10-alert_removed-completed": (
        "alert_removed",
        "buyer",
        {"kind": "NPB", "comment": "Payment was proven.", "by": "staff", "was_completed": True},
    ),
    "N11-order_cancelled-npb-seller": (
        "order_cancelled",
        "seller",
        {
            "basis": "NPB",
            "by": "seller",
            "returns": True,
            "lines_returned": 2,
            "units_returned": 31,
            "strike": True,
            "fee": {"kind": "credit", "amount": "-20.00", "bill": "2026-04"},
        },
    ),
    "N11-order_cancelled-npb-buyer": (
        "order_cancelled",
        "buyer",
        {"basis": "NPB", "by": "seller", "returns": True, "lines_returned": 2, "units_returned": 31, "strike": True},
    ),
    "N20-cancellation_coming": (
        "cancellation_coming",
        "buyer",
        {"cancels_at": UNLOCKS, "penalty_accepted": False},
    ),
    "N20-cancellation_coming-npx": (
        "cancellation_coming",
        "buyer",
        {"cancels_at": UNLOCKS, "penalty_accepted": True},
    ),
    "N21-order_cancelled-seller": ("order_cancelled", "seller", AUTOMATIC | {"fee": FEE}),
    "N21-order_cancelled-buyer": ("order_cancelled", "buyer", AUTOMATIC),
    "N21-npb_filed_automatically": (
        "npb_filed_automatically",
        "seller",
        {
            "unlocks_at": UNLOCKS,
            "cancels_at": LATER,
            "automation": {"setting": "file_npb_after", "value": 7, "set_at": "2026-03-01T10:00:00Z"},
        },
    ),
    "N21-order_cancelled-request-seller": ("order_cancelled", "seller", AGREED | {"fee": FEE}),
    "N21-order_cancelled-silence-seller": ("order_cancelled", "seller", AGREED | SILENCE | {"fee": FEE}),
    "N11-order_cancelled-silence-buyer": ("order_cancelled", "buyer", AGREED | SILENCE),
    "N03-ocr_declined-silence": ("ocr_declined", "buyer", {"status": "READY"} | SILENCE),
    "N21-ocr_declined_automatically": ("ocr_declined_automatically", "seller", {"status": "READY"} | SILENCE),
    "N01-ocr_filed-agreed": (
        "ocr_filed",
        "seller",
        {"reason": "B_MUTUAL", "comment": COMMENT, "agrees_at": UNLOCKS, "agreed_by_setting": True},
    ),
    "N01-ocr_filed-silence": (
        "ocr_filed",
        "seller",
        {"reason": "B_MUTUAL", "comment": COMMENT, "agrees_at": UNLOCKS, "agreed_by_setting": False},
    ),
    "N16-ocr_reminder-silence": (
        "ocr_reminder",
        "seller",
        {"reason": "B_MUTUAL", "filed_at": "2026-04-06T10:00:00Z", "days": 2, "last": False, "declines_at": UNLOCKS},
    ),
    "N22-npb_extended": ("npb_extended", "buyer", {"unlocks_at": LATER, "comment": "As we agreed by phone."}),
    "N21-npb_unlocked": ("npb_unlocked", "seller", {"kind": "NPB", "unlocks_at": UNLOCKS, "cancels_at": LATER}),
    "N21-npx_accepted": ("npx_accepted", "seller", {"cancels_at": LATER}),
    "N11-order_cancelled-ocr-seller": (
        "order_cancelled",
        "seller",
        {
            "basis": "OCR_BUYER",
            "by": "seller",
            "returns": True,
            "lines_returned": 1,
            "units_returned": 1,
            "strike": False,
            "fee": {"kind": "reset", "amount": "-20.00", "bill": "2026-04"},
        },
    ),
    "N11-order_cancelled-nss-seller": (
        "order_cancelled",
        "seller",
        {
            "basis": "NSS",
            "by": "buyer",
            "returns": False,
            "lines_returned": 0,
            "units_returned": 0,
            "strike": True,
            "fee": {"kind": "none", "amount": "0.00", "bill": None},
        },
    ),
    "N11-order_cancelled-nss-buyer": (
        "order_cancelled",
        "buyer",
        {"basis": "NSS", "by": "buyer", "returns": False, "lines_returned": 0, "units_returned": 0, "strike": True},
    ),
    "N12-removal_cancelled-one": ("removal_cancelled", "buyer", {"removal_ids": [7]}),
    "N12-removal_cancelled-many": ("removal_cancelled", "seller", {"removal_ids": [7, 9]}),
    "N13-credit_posted": (
        "credit_posted",
        "seller",
        {"amount": "20.00", "bill": "2026-04", "charged_month": "2026-03"},
    ),
    "N14-bill_issued": ("bill_issued", "seller", {"month": "2026-03", "total": "31.50", "due_on": "2026-05-05"}),
    "N15-privilege_revoked-buying": (
        "privilege_revoked",
        "buyer",
        {"privilege": "buying", "strikes": [881, 942, 1003]},
    ),
    "N15-privilege_revoked-selling": (
        "privilege_revoked",
        "seller",
        {"privilege": "selling", "strikes": [881, 942, 1003]},
    ),
    "N16-ocr_reminder": (
        "ocr_reminder",
        "seller",
        {"reason": "B_SELLER_NO_STOCK", "filed_at": "2026-04-02T10:00:00Z", "days": 2, "last": False},
    ),
    "N16-ocr_reminder-last": (
        "ocr_reminder",
        "seller",
        {"reason": "B_SELLER_NO_STOCK", "filed_at": "2026-03-25T10:00:00Z", "days": 10, "last": True},
    ),
    "N17-unlock_reminder-npb": (
        "unlock_reminder",
        "seller",
        {"kind": "NPB", "penalty_accepted": False, "since": UNLOCKS, "days": 3, "last": False},
    ),
    "N17-unlock_reminder-npx": (
        "unlock_reminder",
        "seller",
        {"kind": "NPB", "penalty_accepted": True, "since": UNLOCKS, "days": 10, "last": True},
    ),
    "N17-unlock_reminder-nss": (
        "unlock_reminder",
        "buyer",
        {"kind": "NSS", "penalty_accepted": False, "since": LATER, "days": 3, "last": False},
    ),
    "N18-payment_during_alert": ("payment_during_alert", "seller", {"payment_status": "Received"}),
    "N19-payment_after_cancellation-seller": (
        "payment_after_cancellation",
        "seller",
        {"payment_status": "Received"},
    ),
    "N19-payment_after_cancellation-buyer": ("payment_after_cancellation", "buyer", {"payment_status": "Sent"}),
}
