"""The first schema: all tables, then triggers and grants.  Written by `python -m tools.first_revision`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from models.ddl.complete_metadata import ddl_statements
from models.feed import FEED_BASE

WRITTEN_IN = sa.text("((pg_current_xact_id()::text)::bigint + unwind.feed_base())")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Tables, indexes, triggers, roles."""
    op.execute(sa.text(FEED_BASE.format(base=0)))
    op.execute(sa.text("CREATE SEQUENCE unwind.own_lot_ids AS bigint MINVALUE 9000000000000 START 9000000000000"))
    op.create_table(
        "api_keys",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_used_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("scope IN ('submit', 'read', 'staff')", name=op.f("ck_api_keys_scope_known")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_id", name=op.f("uq_api_keys_key_id")),
        schema="unwind",
    )
    op.create_table(
        "audit_positions",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_audit_positions")),
        schema="unwind",
    )
    op.create_table(
        "billing_months",
        sa.Column("billing_month", sa.Date(), nullable=False),
        sa.Column("closed_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("extract(day FROM billing_month) = 1", name=op.f("ck_billing_months_is_a_month")),
        sa.PrimaryKeyConstraint("billing_month", name=op.f("pk_billing_months")),
        schema="unwind",
    )
    op.create_table(
        "broker_epochs",
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("first_seen_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_broker_epochs")),
        schema="unwind",
    )
    op.create_table(
        "commands",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_commands")),
        schema="unwind",
    )
    op.create_table(
        "dead_jobs",
        sa.Column("dead_job_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("outbox_id", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("arguments", postgresql.JSON(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("payload_hash", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("first_error", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("parked_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("replayed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("discarded_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("discard_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "first_error <> '' AND error <> '' AND length(payload_hash) = 32", name=op.f("ck_dead_jobs_says_why")
        ),
        sa.CheckConstraint(
            "reason IN ('FAILED', 'WORKER_DIED', 'TOO_LONG', 'UNDELIVERABLE', 'IMPOSSIBLE')",
            name=op.f("ck_dead_jobs_reason_known"),
        ),
        sa.CheckConstraint(
            "(discarded_at IS NULL) = (discard_reason IS NULL) AND (discarded_at IS NULL OR replayed_at IS NULL)",
            name=op.f("ck_dead_jobs_discarded_for_a_reason"),
        ),
        sa.PrimaryKeyConstraint("dead_job_id", name=op.f("pk_dead_jobs")),
        sa.Index(
            "ix_dead_jobs_waiting",
            "dead_job_id",
            postgresql_where=sa.text("replayed_at IS NULL AND discarded_at IS NULL"),
        ),
        schema="unwind",
    )
    op.create_table(
        "dead_letters",
        sa.Column("dead_letter_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("key", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("task_name", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("received_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("requeued_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "reason IN ('TOO_LARGE', 'NOT_JSON', 'NOT_A_COMMAND', 'NOT_ALLOWED', 'WRONG_QUEUE', 'TASK_UNKNOWN', "
            "'EXPIRED')",
            name=op.f("ck_dead_letters_reason_known"),
        ),
        sa.PrimaryKeyConstraint("dead_letter_id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint("key", name=op.f("uq_dead_letters_key")),
        schema="unwind",
    )
    op.create_table(
        "events",
        sa.Column("written_in", sa.BigInteger(), server_default=WRITTEN_IN, nullable=False),
        sa.Column("event_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=True),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("changes", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("written_in", "event_id", name=op.f("pk_events")),
        sa.UniqueConstraint("order_id", "seq", name=op.f("uq_events_order_id_seq")),
        sa.Index("ix_events_member_id", "member_id", "event_id", postgresql_where=sa.text("member_id IS NOT NULL")),
        schema="unwind",
    )
    op.create_table(
        "item_locks",
        sa.Column("item", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("item", name=op.f("pk_item_locks")),
        schema="unwind",
    )
    op.create_table(
        "ledger_lines",
        sa.Column("written_in", sa.BigInteger(), server_default=WRITTEN_IN, nullable=False),
        sa.Column("line_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("billing_month", sa.Date(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=24, scale=2), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("charged_month", sa.Date(), nullable=True),
        sa.Column("credited_month", sa.Date(), nullable=True),
        sa.Column("payment_id", sa.Text(), nullable=True),
        sa.Column("excess", sa.Numeric(precision=24, scale=2), nullable=True),
        sa.Column("excess_credit_month", sa.Date(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(excess IS NULL) = (excess_credit_month IS NULL) AND (excess IS NULL OR (kind = 'payment' AND excess > 0 "
            "AND excess <= -amount))",
            name=op.f("ck_ledger_lines_excess_only_of_payment"),
        ),
        sa.CheckConstraint(
            "(kind = 'payment') = (payment_id IS NOT NULL)", name=op.f("ck_ledger_lines_payment_id_only_of_payment")
        ),
        sa.CheckConstraint(
            "CASE WHEN kind = 'charge' THEN amount > 0 ELSE amount < 0 END", name=op.f("ck_ledger_lines_amount_sign")
        ),
        sa.CheckConstraint("amount <> 'NaN'", name=op.f("ck_ledger_lines_amount_is_a_number")),
        sa.CheckConstraint(
            "kind IN ('charge', 'reset', 'credit', 'reversal', 'payment', 'manual_credit')",
            name=op.f("ck_ledger_lines_kind_known"),
        ),
        sa.CheckConstraint(
            "kind IN ('payment', 'manual_credit') OR order_id IS NOT NULL", name=op.f("ck_ledger_lines_has_order")
        ),
        sa.CheckConstraint(
            "extract(day FROM billing_month) = 1", name=op.f("ck_ledger_lines_billing_month_is_a_month")
        ),
        sa.PrimaryKeyConstraint("written_in", "line_id", name=op.f("pk_ledger_lines")),
        sa.UniqueConstraint("key", name=op.f("uq_ledger_lines_key")),
        sa.Index("ix_ledger_lines_bill", "seller_id", "billing_month"),
        sa.Index("ix_ledger_lines_billing_month", "billing_month"),
        sa.Index(
            "ix_ledger_lines_excess_credit_month",
            "excess_credit_month",
            postgresql_where=sa.text("excess_credit_month IS NOT NULL"),
        ),
        sa.Index("ix_ledger_lines_order_id", "order_id"),
        sa.Index(
            "uq_ledger_lines_one_reset_or_credit",
            "order_id",
            unique=True,
            postgresql_where=sa.text("kind IN ('reset', 'credit')"),
        ),
        sa.Index(
            "uq_ledger_lines_payment_id", "payment_id", unique=True, postgresql_where=sa.text("payment_id IS NOT NULL")
        ),
        schema="unwind",
    )
    op.create_table(
        "ledger_locks",
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seller_id", name=op.f("pk_ledger_locks")),
        schema="unwind",
    )
    op.create_table(
        "members",
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("terminated_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("buying_revoked_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("selling_suspended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("reinstated_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("automation", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_members")),
        schema="unwind",
    )
    op.create_table(
        "named_locks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_named_locks")),
        schema="unwind",
    )
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("email", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("next_try_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sent_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("first_error", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'pending') = (next_try_at IS NOT NULL)", name=op.f("ck_notices_next_try_while_pending")
        ),
        sa.CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name=op.f("ck_notices_sent_at_when_sent")),
        sa.CheckConstraint("state IN ('pending', 'sent', 'parked')", name=op.f("ck_notices_state_known")),
        sa.PrimaryKeyConstraint("notice_id", name=op.f("pk_notices")),
        sa.UniqueConstraint("key", name=op.f("uq_notices_key")),
        sa.Index(
            "ix_notices_due", "attempts", "next_try_at", "notice_id", postgresql_where=sa.text("state = 'pending'")
        ),
        sa.Index("ix_notices_order_id", "order_id"),
        sa.Index("ix_notices_parked", "notice_id", postgresql_where=sa.text("state = 'parked'")),
        schema="unwind",
    )
    op.create_table(
        "outbox",
        sa.Column("outbox_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), server_default="due", nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("due_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("publish_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("first_error", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('due', 'done', 'dead')", name=op.f("ck_outbox_state_known")),
        sa.CheckConstraint(
            "task IN ('removals.cancel_pending', 'credits.post_to_next_invoice', 'notices.tell_seller', "
            "'notices.tell_buyer')",
            name=op.f("ck_outbox_task_known"),
        ),
        sa.PrimaryKeyConstraint("outbox_id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
        sa.Index(
            "ix_outbox_done",
            "done_at",
            postgresql_where=sa.text("state = 'done' AND task <> 'credits.post_to_next_invoice'"),
        ),
        sa.Index("ix_outbox_due", "task", "due_at", "outbox_id", postgresql_where=sa.text("state = 'due'")),
        schema="unwind",
    )
    op.create_table(
        "pauses",
        sa.Column("pause_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("paused_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("resumed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('queue', 'task')", name=op.f("ck_pauses_kind_known")),
        sa.CheckConstraint("until > paused_at AND resumed_at >= paused_at", name=op.f("ck_pauses_in_order")),
        sa.PrimaryKeyConstraint("pause_id", name=op.f("pk_pauses")),
        sa.Index("ix_pauses_open", "kind", "name", unique=True, postgresql_where=sa.text("resumed_at IS NULL")),
        schema="unwind",
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("answer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("answered_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("outcome IN ('done', 'refused')", name=op.f("ck_requests_outcome_known")),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_requests")),
        sa.Index("ix_requests_answered_at", "answered_at"),
        schema="unwind",
    )
    op.create_table(
        "stock_moves",
        sa.Column("written_in", sa.BigInteger(), server_default=WRITTEN_IN, nullable=False),
        sa.Column("move_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("item_type", sa.Text(), nullable=False),
        sa.Column("item_no", sa.Text(), nullable=False),
        sa.Column("color_id", sa.Integer(), nullable=False),
        sa.Column("new_or_used", sa.Text(), nullable=False),
        sa.Column("completeness", sa.Text(), nullable=True),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("delta", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("line_no", sa.Integer(), nullable=True),
        sa.Column("removal_id", sa.BigInteger(), nullable=True),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(kind IN ('sold', 'returned')) = (order_id IS NOT NULL AND line_no IS NOT NULL)",
            name=op.f("ck_stock_moves_has_order_line"),
        ),
        sa.CheckConstraint(
            "CASE kind WHEN 'sold' THEN delta < 0 WHEN 'adjusted' THEN true ELSE delta >= 0 END",
            name=op.f("ck_stock_moves_delta_sign"),
        ),
        sa.CheckConstraint(
            "kind IN ('recorded', 'sold', 'returned', 'adjusted')", name=op.f("ck_stock_moves_kind_known")
        ),
        sa.PrimaryKeyConstraint("written_in", "move_id", name=op.f("pk_stock_moves")),
        sa.Index("ix_stock_moves_item", "seller_id", "item_no"),
        sa.Index(
            "uq_stock_moves_removed",
            "removal_id",
            "line_no",
            unique=True,
            postgresql_where=sa.text("removal_id IS NOT NULL"),
        ),
        sa.Index(
            "uq_stock_moves_returned",
            "order_id",
            "line_no",
            unique=True,
            postgresql_where=sa.text("kind = 'returned' AND removal_id IS NULL"),
        ),
        sa.Index("uq_stock_moves_sold", "order_id", "line_no", unique=True, postgresql_where=sa.text("kind = 'sold'")),
        schema="unwind",
    )
    op.create_table(
        "submissions",
        sa.Column("submission_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=True),
        sa.Column("submitted_by", sa.Text(), nullable=False),
        sa.Column("submitted_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("due_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("answer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("answered_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("first_error", sa.Text(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'answered', 'dead')", name=op.f("ck_submissions_state_known")),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("request_id", name=op.f("uq_submissions_request_id")),
        sa.Index(
            "ix_submissions_alone",
            "submission_id",
            "due_at",
            postgresql_where=sa.text("state = 'waiting' AND NOT (attempts = 0 AND octet_length(payload) <= 65536)"),
        ),
        sa.Index("ix_submissions_answered", "answered_at", postgresql_where=sa.text("state = 'answered'")),
        sa.Index(
            "ix_submissions_due",
            "submission_id",
            "due_at",
            postgresql_where=sa.text("state = 'waiting' AND (attempts = 0 AND octet_length(payload) <= 65536)"),
        ),
        sa.Index("ix_submissions_order", "order_id", "submission_id", postgresql_where=sa.text("state = 'waiting'")),
        schema="unwind",
    )
    op.create_table(
        "sweep_hours",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hour", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("found", sa.BigInteger(), nullable=False),
        sa.Column("longest_gap", sa.Interval(), nullable=True),
        sa.PrimaryKeyConstraint("name", "hour", name=op.f("pk_sweep_hours")),
        schema="unwind",
    )
    op.create_table(
        "sweeps",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ran_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("found", sa.BigInteger(), nullable=False),
        sa.Column("found_ever", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_sweeps")),
        schema="unwind",
    )
    op.create_table(
        "terms",
        sa.Column("terms_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("valid_from", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("settings", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("applied_by", sa.Text(), nullable=False),
        sa.Column("applied_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("terms_id", name=op.f("pk_terms")),
        schema="unwind",
    )
    op.create_table(
        "violations",
        sa.Column("violation_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("found_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("cleared_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("violation_id", name=op.f("pk_violations")),
        sa.Index(
            "uq_violations_open", "sentence", "subject", unique=True, postgresql_where=sa.text("cleared_at IS NULL")
        ),
        schema="unwind",
    )
    op.create_table(
        "web_links",
        sa.Column("link_hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("link_hash", name=op.f("pk_web_links")),
        sa.Index("ix_web_links_used_at", "used_at"),
        schema="unwind",
    )
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("event_types", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("next_try_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("leased_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("delivered", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("delivered_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failing_since", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("disabled_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("removed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(failing_since IS NULL) = (failures = 0)", name=op.f("ck_webhooks_failing_since_the_first_failure")
        ),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhooks")),
        sa.Index(
            "ix_webhooks_due", "next_try_at", postgresql_where=sa.text("disabled_at IS NULL AND removed_at IS NULL")
        ),
        schema="unwind",
    )
    op.create_table(
        "bills",
        sa.Column("bill_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("billing_month", sa.Date(), nullable=False),
        sa.Column("issued_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("due_on", sa.Date(), nullable=False),
        sa.Column("grace_until", sa.Date(), nullable=False),
        sa.Column("past_due_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("opening_credit", sa.Numeric(precision=24, scale=2), nullable=False),
        sa.Column("lines_sum", sa.Numeric(precision=24, scale=2), nullable=False),
        sa.Column("total", sa.Numeric(precision=24, scale=2), nullable=False),
        sa.Column("carried_forward", sa.Numeric(precision=24, scale=2), nullable=False),
        sa.Column("lines_hash", sa.Text(), nullable=False),
        sa.Column("written_in", sa.BigInteger(), server_default=WRITTEN_IN, nullable=False),
        sa.CheckConstraint("carried_forward <> 'NaN'", name=op.f("ck_bills_carried_forward_is_a_number")),
        sa.CheckConstraint("lines_sum <> 'NaN'", name=op.f("ck_bills_lines_sum_is_a_number")),
        sa.CheckConstraint("opening_credit <> 'NaN'", name=op.f("ck_bills_opening_credit_is_a_number")),
        sa.CheckConstraint("total <> 'NaN'", name=op.f("ck_bills_total_is_a_number")),
        sa.CheckConstraint("extract(day FROM billing_month) = 1", name=op.f("ck_bills_billing_month_is_a_month")),
        sa.CheckConstraint("lines_sum + opening_credit = total + carried_forward", name=op.f("ck_bills_sums_add_up")),
        sa.CheckConstraint("total >= 0 AND (total = 0 OR carried_forward = 0)", name=op.f("ck_bills_floored_at_zero")),
        sa.ForeignKeyConstraint(["seller_id"], ["unwind.members.member_id"], name=op.f("fk_bills_seller_id")),
        sa.PrimaryKeyConstraint("bill_id", name=op.f("pk_bills")),
        sa.UniqueConstraint("seller_id", "billing_month", name=op.f("uq_bills_seller_id_billing_month")),
        sa.Index("ix_bills_carried", "billing_month", "seller_id", postgresql_where=sa.text("carried_forward <> 0")),
        sa.Index("ix_bills_written_in", "written_in", "bill_id"),
        schema="unwind",
    )
    op.create_table(
        "held_bills",
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("billing_month", sa.Date(), nullable=False),
        sa.Column("held_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("extract(day FROM billing_month) = 1", name=op.f("ck_held_bills_billing_month_is_a_month")),
        sa.ForeignKeyConstraint(["seller_id"], ["unwind.members.member_id"], name=op.f("fk_held_bills_seller_id")),
        sa.PrimaryKeyConstraint("seller_id", "billing_month", name=op.f("pk_held_bills")),
        schema="unwind",
    )
    op.create_table(
        "lots",
        sa.Column("lot_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("item_type", sa.Text(), nullable=False),
        sa.Column("item_no", sa.Text(), nullable=False),
        sa.Column("color_id", sa.Integer(), nullable=False),
        sa.Column("new_or_used", sa.Text(), nullable=False),
        sa.Column("completeness", sa.Text(), nullable=True),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_price", sa.Numeric(precision=14, scale=4), nullable=False),
        sa.Column("bind_id", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("remarks", sa.Text(), nullable=False),
        sa.Column("bulk", sa.Integer(), nullable=False),
        sa.Column("is_retain", sa.Boolean(), nullable=False),
        sa.Column("is_stock_room", sa.Boolean(), nullable=False),
        sa.Column("stock_room_id", sa.Text(), nullable=True),
        sa.Column("auto_stockroom", sa.Boolean(), nullable=False),
        sa.Column("my_cost", sa.Numeric(precision=14, scale=4), nullable=True),
        sa.Column("my_weight", sa.Numeric(precision=14, scale=4), nullable=True),
        sa.Column("sale_rate", sa.Integer(), nullable=False),
        sa.Column("tier_quantity1", sa.Integer(), nullable=True),
        sa.Column("tier_price1", sa.Numeric(precision=14, scale=4), nullable=True),
        sa.Column("tier_quantity2", sa.Integer(), nullable=True),
        sa.Column("tier_price2", sa.Numeric(precision=14, scale=4), nullable=True),
        sa.Column("tier_quantity3", sa.Integer(), nullable=True),
        sa.Column("tier_price3", sa.Numeric(precision=14, scale=4), nullable=True),
        sa.Column("reserved_for", sa.Text(), nullable=True),
        sa.CheckConstraint("completeness IN ('C', 'B', 'S')", name=op.f("ck_lots_completeness_known")),
        sa.CheckConstraint("my_cost <> 'NaN'", name=op.f("ck_lots_my_cost_is_a_number")),
        sa.CheckConstraint("my_weight <> 'NaN'", name=op.f("ck_lots_my_weight_is_a_number")),
        sa.CheckConstraint("new_or_used IN ('N', 'U')", name=op.f("ck_lots_new_or_used_known")),
        sa.CheckConstraint("stock_room_id IN ('A', 'B', 'C')", name=op.f("ck_lots_stock_room_id_known")),
        sa.CheckConstraint("tier_price1 <> 'NaN'", name=op.f("ck_lots_tier_price1_is_a_number")),
        sa.CheckConstraint("tier_price2 <> 'NaN'", name=op.f("ck_lots_tier_price2_is_a_number")),
        sa.CheckConstraint("tier_price3 <> 'NaN'", name=op.f("ck_lots_tier_price3_is_a_number")),
        sa.CheckConstraint("unit_price <> 'NaN'", name=op.f("ck_lots_unit_price_is_a_number")),
        sa.CheckConstraint("bulk >= 1", name=op.f("ck_lots_bulk_at_least_one")),
        sa.CheckConstraint(
            "is_stock_room OR NOT auto_stockroom", name=op.f("ck_lots_auto_stockroom_only_in_stockroom")
        ),
        sa.CheckConstraint("my_cost >= 0", name=op.f("ck_lots_cost_not_negative")),
        sa.CheckConstraint("my_weight >= 0", name=op.f("ck_lots_weight_not_negative")),
        sa.CheckConstraint("quantity >= 0", name=op.f("ck_lots_quantity_not_negative")),
        sa.CheckConstraint("reserved_for IS NULL OR NOT is_stock_room", name=op.f("ck_lots_reserved_not_in_stockroom")),
        sa.CheckConstraint("sale_rate BETWEEN 0 AND 99", name=op.f("ck_lots_sale_rate_below_100")),
        sa.CheckConstraint(
            "stock_room_id IS NULL OR is_stock_room", name=op.f("ck_lots_stock_room_id_only_in_stockroom")
        ),
        sa.CheckConstraint(
            "tier_quantity1 IS NULL AND tier_price1 IS NULL OR (tier_quantity1 > 0 AND tier_price1 > 0 AND tier_price1"
            " < unit_price) IS TRUE",
            name=op.f("ck_lots_tier1_more_units_lower_price"),
        ),
        sa.CheckConstraint(
            "tier_quantity2 IS NULL AND tier_price2 IS NULL OR (tier_quantity2 > tier_quantity1 AND tier_price2 > 0 "
            "AND tier_price2 < tier_price1) IS TRUE",
            name=op.f("ck_lots_tier2_more_units_lower_price"),
        ),
        sa.CheckConstraint(
            "tier_quantity3 IS NULL AND tier_price3 IS NULL OR (tier_quantity3 > tier_quantity2 AND tier_price3 > 0 "
            "AND tier_price3 < tier_price2) IS TRUE",
            name=op.f("ck_lots_tier3_more_units_lower_price"),
        ),
        sa.CheckConstraint("unit_price > 0", name=op.f("ck_lots_price_above_zero")),
        sa.ForeignKeyConstraint(["seller_id"], ["unwind.members.member_id"], name=op.f("fk_lots_seller_id")),
        sa.PrimaryKeyConstraint("lot_id", name=op.f("pk_lots")),
        sa.Index("ix_lots_key", "seller_id", "item_type", "item_no", "color_id", "new_or_used", "completeness"),
        schema="unwind",
    )
    op.create_table(
        "orders",
        sa.Column("order_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("buyer_id", sa.Text(), nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("previous_status", sa.Text(), nullable=True),
        sa.Column("payment_status", sa.Text(), nullable=False),
        sa.Column("submitted_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("order_date", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("usd_rate", sa.Numeric(precision=18, scale=8), nullable=False),
        sa.Column("total", sa.Numeric(precision=24, scale=4), nullable=False),
        sa.Column("credit", sa.Numeric(precision=24, scale=4), server_default="0", nullable=False),
        sa.Column("coupon", sa.Numeric(precision=24, scale=4), server_default="0", nullable=False),
        sa.Column("fee", sa.Numeric(precision=24, scale=2), nullable=False),
        sa.Column("fee_month", sa.Date(), nullable=True),
        sa.Column("cancelled_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("basis", sa.Text(), nullable=True),
        sa.Column("cancelled_by", sa.Text(), nullable=True),
        sa.Column("npb_filed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("files_npb_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("held_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("held_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("last_event_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(status = 'CANCELLED') = (cancelled_at IS NOT NULL AND basis IS NOT NULL AND cancelled_by IS NOT NULL)",
            name=op.f("ck_orders_cancellation_complete"),
        ),
        sa.CheckConstraint(
            "basis IN ('OCR_SELLER', 'OCR_BUYER', 'NPB', 'NPX', 'NRS', 'NSS', 'BUYER_TERMINATED', 'SELLER_TERMINATED')",
            name=op.f("ck_orders_basis_known"),
        ),
        sa.CheckConstraint("coupon <> 'NaN'", name=op.f("ck_orders_coupon_is_a_number")),
        sa.CheckConstraint("credit <> 'NaN'", name=op.f("ck_orders_credit_is_a_number")),
        sa.CheckConstraint("fee <> 'NaN'", name=op.f("ck_orders_fee_is_a_number")),
        sa.CheckConstraint(
            "payment_status IN ('None', 'Pending', 'Sent', 'Received', 'Completed')",
            name=op.f("ck_orders_payment_status_known"),
        ),
        sa.CheckConstraint(
            "status IN ('PENDING', 'UPDATED', 'PROCESSING', 'READY', 'PAID', 'PACKED', 'SHIPPED', 'RECEIVED', "
            "'COMPLETED', 'OCR', 'NPB', 'NPX', 'NRS', 'NSS', 'CANCELLED')",
            name=op.f("ck_orders_status_known"),
        ),
        sa.CheckConstraint("total <> 'NaN'", name=op.f("ck_orders_total_is_a_number")),
        sa.CheckConstraint("buyer_id <> seller_id", name=op.f("ck_orders_buyer_is_not_seller")),
        sa.CheckConstraint("extract(day FROM fee_month) = 1", name=op.f("ck_orders_fee_month_is_a_month")),
        sa.CheckConstraint("held_until > held_at", name=op.f("ck_orders_held_until_later")),
        sa.CheckConstraint(
            "total >= 0 AND fee >= 0 AND credit >= 0 AND coupon >= 0", name=op.f("ck_orders_not_negative")
        ),
        sa.ForeignKeyConstraint(["buyer_id"], ["unwind.members.member_id"], name=op.f("fk_orders_buyer_id")),
        sa.ForeignKeyConstraint(["seller_id"], ["unwind.members.member_id"], name=op.f("fk_orders_seller_id")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_orders")),
        sa.Index("ix_orders_buyer_npb", "buyer_id", "seller_id", postgresql_where=sa.text("status = 'NPB'")),
        sa.Index(
            "ix_orders_files_npb", "files_npb_at", "order_id", postgresql_where=sa.text("files_npb_at IS NOT NULL")
        ),
        sa.Index("ix_orders_seller_id", "seller_id"),
        schema="unwind",
    )
    op.create_table(
        "strikes",
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("withdrawn_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('buyer', 'seller')", name=op.f("ck_strikes_role_known")),
        sa.ForeignKeyConstraint(["member_id"], ["unwind.members.member_id"], name=op.f("fk_strikes_member_id")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("pk_strikes")),
        sa.Index("ix_strikes_member_id", "member_id"),
        schema="unwind",
    )
    op.create_table(
        "alerts",
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("alert_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("terms_id", sa.Integer(), nullable=False),
        sa.Column("unlock_seq", sa.Integer(), nullable=True),
        sa.Column("reminders", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("penalty_stands", sa.Boolean(), nullable=False),
        sa.Column("filed_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("unlocks_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("unlocked_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("remind_from", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("remind_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("cancels_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("extended_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("warned_of", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("responded_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("penalty_accepted_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("penalty_withdrawn_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("closed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("grounds", sa.Text(), nullable=True),
        sa.Column("previous_status", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("response", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("ck_alerts_closed_when_not_open")),
        sa.CheckConstraint("kind IN ('NPB', 'NRS', 'NSS')", name=op.f("ck_alerts_kind_known")),
        sa.CheckConstraint(
            "state IN ('open', 'completed', 'removed', 'superseded')", name=op.f("ck_alerts_state_known")
        ),
        sa.CheckConstraint(
            "unlocked_at <= COALESCE(closed_at, 'infinity')", name=op.f("ck_alerts_unlocked_before_closed")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["unwind.orders.order_id"], name=op.f("fk_alerts_order_id")),
        sa.PrimaryKeyConstraint("order_id", "alert_id", name=op.f("pk_alerts")),
        sa.Index(
            "ix_alerts_cancel",
            "cancels_at",
            "alert_id",
            postgresql_where=sa.text("state = 'open' AND cancels_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_alerts_remind",
            "remind_at",
            "alert_id",
            postgresql_where=sa.text("state = 'open' AND remind_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_alerts_waiting",
            "unlocks_at",
            "alert_id",
            "kind",
            postgresql_where=sa.text("state = 'open' AND unlocked_at IS NULL AND NOT penalty_stands"),
        ),
        sa.Index(
            "ix_alerts_warn",
            "cancels_at",
            "alert_id",
            postgresql_where=sa.text(
                "state = 'open' AND cancels_at IS NOT NULL AND warned_of IS DISTINCT FROM cancels_at"
            ),
        ),
        sa.Index("uq_alerts_one_open_per_order", "order_id", unique=True, postgresql_where=sa.text("state = 'open'")),
        schema="unwind",
    )
    op.create_table(
        "drafts",
        sa.Column("draft_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("seller_id", sa.Text(), nullable=False),
        sa.Column("order_version", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("consolidate", sa.Boolean(), nullable=False),
        sa.Column("choices", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("opened_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("verified_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("verified_lines", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("used_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'used') = (used_at IS NOT NULL)", name=op.f("ck_drafts_used_at_when_used")),
        sa.CheckConstraint("state = 'open' OR verified_at IS NOT NULL", name=op.f("ck_drafts_verified_before_use")),
        sa.CheckConstraint("state IN ('open', 'verified', 'used')", name=op.f("ck_drafts_state_known")),
        sa.ForeignKeyConstraint(["order_id"], ["unwind.orders.order_id"], name=op.f("fk_drafts_order_id")),
        sa.ForeignKeyConstraint(["seller_id"], ["unwind.members.member_id"], name=op.f("fk_drafts_seller_id")),
        sa.PrimaryKeyConstraint("draft_id", name=op.f("pk_drafts")),
        sa.Index("ix_drafts_order_id", "order_id"),
        sa.Index("uq_drafts_used", "order_id", unique=True, postgresql_where=sa.text("state = 'used'")),
        schema="unwind",
    )
    op.create_table(
        "late_payments",
        sa.Column("late_payment_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("payment_status", sa.Text(), nullable=False),
        sa.Column("recorded_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("settled_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("settled_by", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "payment_status IN ('Pending', 'Sent', 'Received', 'Completed')",
            name=op.f("ck_late_payments_payment_status_known"),
        ),
        sa.CheckConstraint(
            "(settled_at IS NULL) = (settled_by IS NULL)", name=op.f("ck_late_payments_settled_by_somebody")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["unwind.orders.order_id"], name=op.f("fk_late_payments_order_id")),
        sa.PrimaryKeyConstraint("late_payment_id", name=op.f("pk_late_payments")),
        sa.Index("ix_late_payments_order_id", "order_id", "late_payment_id"),
        sa.Index(
            "uq_late_payments_one_open_per_order",
            "order_id",
            unique=True,
            postgresql_where=sa.text("settled_at IS NULL"),
        ),
        schema="unwind",
    )
    op.create_table(
        "ocrs",
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("ocr_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("filed_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("terms_id", sa.Integer(), nullable=False),
        sa.Column("reminders", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("filed_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("remind_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("agrees_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("declines_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("closed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("previous_status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("ck_ocrs_closed_when_not_open")),
        sa.CheckConstraint("filed_by IN ('buyer', 'seller')", name=op.f("ck_ocrs_filed_by_known")),
        sa.CheckConstraint(
            "state IN ('open', 'agreed', 'declined', 'withdrawn', 'superseded')", name=op.f("ck_ocrs_state_known")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["unwind.orders.order_id"], name=op.f("fk_ocrs_order_id")),
        sa.PrimaryKeyConstraint("order_id", "ocr_id", name=op.f("pk_ocrs")),
        sa.Index(
            "ix_ocrs_agrees",
            "agrees_at",
            "ocr_id",
            postgresql_where=sa.text("state = 'open' AND agrees_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_ocrs_declines",
            "declines_at",
            "ocr_id",
            postgresql_where=sa.text("state = 'open' AND declines_at IS NOT NULL"),
        ),
        sa.Index(
            "ix_ocrs_remind",
            "remind_at",
            "ocr_id",
            postgresql_where=sa.text("state = 'open' AND remind_at IS NOT NULL"),
        ),
        sa.Index("uq_ocrs_one_open_per_order", "order_id", unique=True, postgresql_where=sa.text("state = 'open'")),
        schema="unwind",
    )
    op.create_table(
        "order_lines",
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("batch_no", sa.Integer(), nullable=False),
        sa.Column("lot_id", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("removed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("returned", sa.Integer(), server_default="0", nullable=False),
        sa.Column("returned_to_lot", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("unit_price", sa.Numeric(precision=14, scale=4), nullable=False),
        sa.Column("snapshot", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("unit_price <> 'NaN'", name=op.f("ck_order_lines_unit_price_is_a_number")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_order_lines_quantity_positive")),
        sa.CheckConstraint(
            "removed >= 0 AND returned >= 0 AND removed + returned <= quantity",
            name=op.f("ck_order_lines_units_conserved"),
        ),
        sa.ForeignKeyConstraint(["order_id"], ["unwind.orders.order_id"], name=op.f("fk_order_lines_order_id")),
        sa.PrimaryKeyConstraint("order_id", "line_no", name=op.f("pk_order_lines")),
        schema="unwind",
    )
    op.create_table(
        "removals",
        sa.Column("removal_id", sa.BigInteger(), sa.Identity(always=False), autoincrement=True, nullable=False),
        sa.Column("order_id", sa.BigInteger(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("lines", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("return_items", sa.Boolean(), nullable=True),
        sa.Column("requested_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("decided_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'pending') = (decided_at IS NULL)", name=op.f("ck_removals_decided_when_not_pending")
        ),
        sa.CheckConstraint("requested_by IN ('buyer', 'seller')", name=op.f("ck_removals_requested_by_known")),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'denied', 'withdrawn', 'cancelled')", name=op.f("ck_removals_state_known")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["unwind.orders.order_id"], name=op.f("fk_removals_order_id")),
        sa.PrimaryKeyConstraint("removal_id", name=op.f("pk_removals")),
        sa.Index("ix_removals_order_id", "order_id", "removal_id"),
        sa.Index("ix_removals_pending", "order_id", postgresql_where=sa.text("state = 'pending'")),
        schema="unwind",
    )
    op.create_table(
        "draft_lines",
        sa.Column("draft_id", sa.Text(), nullable=False),
        sa.Column("line_no", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=True),
        sa.Column("fields", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("quantity >= 0", name=op.f("ck_draft_lines_quantity_not_negative")),
        sa.ForeignKeyConstraint(["draft_id"], ["unwind.drafts.draft_id"], name=op.f("fk_draft_lines_draft_id")),
        sa.PrimaryKeyConstraint("draft_id", "line_no", name=op.f("pk_draft_lines")),
        schema="unwind",
    )

    for statement in ddl_statements():
        op.execute(sa.text(statement.replace(":", r"\:")))


def downgrade() -> None:
    """Schemas only go forward: restore a backup instead."""
    raise NotImplementedError
