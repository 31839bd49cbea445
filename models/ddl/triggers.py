"""What does the database itself refuse, whoever asks?  Triggers for what is final, and a role that cannot rewrite history.

Triggers hold for everybody, the owner included; the role `unwind_app` has besides no right to change what only grows
(promises.md P5).  Where a login may not create roles the triggers stand alone.  No guard calls `now()`: simulated time must
meet the same database as real time.
"""

from __future__ import annotations

import importlib
import pkgutil

from sqlalchemy import Table

import models
from models import feed, submissions
from models.alerts import AlertRow
from models.db.database import APP_ROLE
from models.db.schema import table_of
from models.ddl import views
from models.members import StrikeRow
from models.orders import OrderRow

SUBMIT_ROLE = "unwind_submit"
"""For producers that hand in commands by SQL: may call one function and do nothing else."""
READER_ROLE = "unwind_reader"
"""For dashboards and people: sees everything but mail addresses, changes nothing."""

APPEND_ONLY = ("events", "ledger_lines", "stock_moves", "bills", "billing_months", "requests", "terms")
"""Tables in which the application inserts and never updates or deletes."""
DELETABLE = ("lots", "dead_letters", "held_bills")
"""A lot that is sold out and not retained ceases to exist (rules.md 5.1); of odd messages only the newest are kept; a held bill is
made."""
DEFINERS = {
    submissions.SUBMIT_DEFINER: (submissions.SUBMIT_COMMAND_SIGNATURE, submissions.SUBMIT_DEFINER_GRANTS),
    feed.FEED_DEFINER: (feed.EVENTS_AFTER_SIGNATURE, feed.FEED_DEFINER_GRANTS),
}
"""Each SECURITY DEFINER function's owner: a role without login, with the rights that the function needs and no other."""
ROLES = (APP_ROLE, SUBMIT_ROLE, READER_ROLE, *DEFINERS)

INTERFACE_GRANTS = {
    f"FUNCTION {submissions.SUBMIT_COMMAND_SIGNATURE}": ("EXECUTE", (APP_ROLE, SUBMIT_ROLE)),
    f"FUNCTION {submissions.SUBMIT_JSONB_SIGNATURE}": ("EXECUTE", (APP_ROLE, SUBMIT_ROLE)),
    f"FUNCTION {feed.EVENTS_AFTER_SIGNATURE}": ("EXECUTE", (APP_ROLE, READER_ROLE)),
    "FUNCTION unwind.feed_base()": ("EXECUTE", (APP_ROLE,)),
    "unwind.command_answers": ("SELECT", (APP_ROLE, READER_ROLE)),
    **{f"unwind.{view.name}": ("SELECT", (APP_ROLE, READER_ROLE)) for view in views.VIEWS},
}
"""What the outside may use beside tables, and who."""
LOCK_TABLES = ("item_locks", "ledger_locks", "named_locks")
PRIVATE_TO_READERS = (
    "members",
    "notices",
    "requests",
    "dead_jobs",
    "outbox",
    "submissions",
    "dead_letters",
    *LOCK_TABLES,
)
"""Mail addresses, letters and whole arguments are not for dashboards."""


def _but(table: Table, *may_change: str) -> str:
    """SQL: anything but these columns changes."""
    return " OR ".join(f'OLD."{c.name}" IS DISTINCT FROM NEW."{c.name}"' for c in table.c if c.name not in may_change)


_changed = _but(table_of(OrderRow), "version", "last_event_at")
"""Of a cancelled order: its timeline goes on when staff removes a completed alert (R39) or a follower says it is done."""

CLOSED_CONDITIONS = {
    # R39: staff may still remove an alert that a cancellation completed.
    "alerts": "OLD.state <> 'open' AND NOT (OLD.state = 'completed' AND NEW.state = 'removed' "
    f"AND NOT ({_but(table_of(AlertRow), 'state', 'closed_at')}))",
    "ocrs": "OLD.state <> 'open'",
    "removals": "OLD.state <> 'pending'",
    "strikes": f"OLD.withdrawn_at IS NOT NULL OR {_but(table_of(StrikeRow), 'withdrawn_at')}",
    "submissions": "OLD.state = 'answered'",
}
"""When a row of a table never changes again."""

TRIGGERS: tuple[str, ...] = (
    """
    CREATE OR REPLACE FUNCTION unwind.cancelled_is_final() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION 'order % is cancelled and final', OLD.order_id USING ERRCODE = 'restrict_violation';
    END $$
    """,
    "DROP TRIGGER IF EXISTS orders_cancelled_is_final ON unwind.orders",
    f"""
    CREATE TRIGGER orders_cancelled_is_final BEFORE UPDATE ON unwind.orders FOR EACH ROW
    WHEN (OLD.status = 'CANCELLED' AND ({_changed})) EXECUTE FUNCTION unwind.cancelled_is_final()
    """,
    """
    CREATE OR REPLACE FUNCTION unwind.append_only() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION '% only grows: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
    END $$
    """,
    *(
        statement
        for table, operations in (
            ("events", "UPDATE OR DELETE OR TRUNCATE"),
            ("stock_moves", "UPDATE OR DELETE OR TRUNCATE"),
            ("requests", "UPDATE OR TRUNCATE"),  # old ones may be deleted by the owner after their thirty days
            ("terms", "UPDATE OR DELETE OR TRUNCATE"),
            *(
                (table, "DELETE OR TRUNCATE")
                for table in ("orders", "order_lines", "alerts", "ocrs", "removals", "strikes")
            ),
        )
        for statement in (
            f"DROP TRIGGER IF EXISTS {table}_append_only ON unwind.{table}",
            f"""
            CREATE TRIGGER {table}_append_only BEFORE {operations} ON unwind.{table}
            FOR EACH STATEMENT EXECUTE FUNCTION unwind.append_only()
            """,
        )
    ),
    # What is closed is closed.  The condition stands in the trigger, so open rows, which sweeps move by the thousand, cost nothing.
    """
    CREATE OR REPLACE FUNCTION unwind.closed_is_final() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION 'this row of % is closed and final', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    *(
        statement
        for table, closed in CLOSED_CONDITIONS.items()
        for statement in (
            f"DROP TRIGGER IF EXISTS {table}_closed_is_final ON unwind.{table}",
            f"""
            CREATE TRIGGER {table}_closed_is_final BEFORE UPDATE ON unwind.{table} FOR EACH ROW
            WHEN ({closed}) EXECUTE FUNCTION unwind.closed_is_final()
            """,
        )
    ),
    # A whole set is looked at once.  The cancelling transaction itself may write lines and order in any order, so only a
    # cancellation that another transaction wrote makes them final.
    """
    CREATE OR REPLACE FUNCTION unwind.parts_of_cancelled_are_final() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    DECLARE found bigint;
    BEGIN
        SELECT o.order_id INTO found FROM (SELECT DISTINCT order_id FROM fresh) f JOIN unwind.orders o USING (order_id)
        WHERE o.status = 'CANCELLED' AND EXISTS (
            SELECT FROM unwind.events e WHERE e.order_id = o.order_id AND e.type = 'orders.cancelled'
            AND e.written_in <> pg_current_xact_id()::text::bigint) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'order % is cancelled and final: % of % is refused', found, TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    *(
        statement
        for table, operation in (
            ("order_lines", "UPDATE"),
            ("order_lines", "INSERT"),
            ("alerts", "INSERT"),
            ("ocrs", "INSERT"),
            ("removals", "INSERT"),
        )
        for statement in (
            f"DROP TRIGGER IF EXISTS {table}_{operation.lower()}_of_cancelled ON unwind.{table}",
            f"""
            CREATE TRIGGER {table}_{operation.lower()}_of_cancelled AFTER {operation} ON unwind.{table}
            REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION unwind.parts_of_cancelled_are_final()
            """,
        )
    ),
)


def _role(name: str) -> str:
    """A role that is there already, or may not be made by this login, is no reason to stop.

    Roles belong to the whole server, so two databases that are migrated at once may meet here.  Since PostgreSQL 16
    membership alone does not allow SET ROLE; before, there is no such privilege to ask for.
    """
    return f"""
    DO $$ BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN
            CREATE ROLE {name} NOLOGIN;
        END IF;
        IF NOT pg_has_role(current_user, '{name}',
            CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
            EXECUTE format('GRANT {name} TO %I', current_user);
        END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege OR undefined_object OR internal_error THEN
        RAISE NOTICE 'role {name} was not made by this migration: %', SQLERRM;
    END $$
    """


def _rights_of(role: str, without: str, append_only: str, deletes: str) -> str:
    """Rights on the tables that are there; each argument is a list of quoted names, `without` those that are left out."""
    return f"""
    DO $$ DECLARE found record;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            RETURN;
        END IF;
        GRANT USAGE ON SCHEMA unwind TO {role};
        FOR found IN SELECT tablename AS name FROM pg_tables WHERE schemaname = 'unwind' AND tablename NOT IN ({without})
        LOOP
            EXECUTE format('REVOKE ALL ON unwind.%I FROM {role}', found.name);
            EXECUTE format('GRANT SELECT ON unwind.%I TO {role}', found.name);
            CONTINUE WHEN '{role}' <> '{APP_ROLE}' OR found.name = 'alembic_version';
            EXECUTE format('GRANT INSERT ON unwind.%I TO {role}', found.name);
            IF found.name NOT IN ({append_only}) THEN
                EXECUTE format('GRANT UPDATE ON unwind.%I TO {role}', found.name);
            END IF;
            IF found.name IN ({deletes}) THEN
                EXECUTE format('GRANT DELETE ON unwind.%I TO {role}', found.name);
            END IF;
        END LOOP;
        IF '{role}' = '{APP_ROLE}' THEN
            GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA unwind TO {role};
        END IF;
    END $$
    """  # noqa: S608 - names of ours, and what the catalogue gives is quoted by format()


def role_statements() -> tuple[str, ...]:
    """Make the roles, where they are missing and this login may; they belong to the server, so no dump holds them."""
    return tuple(_role(name) for name in ROLES)


def grant_statements() -> tuple[str, ...]:
    """The roles and what each may do with the tables there are now.  Every migration repeats it, so a restore and a role that an
    administrator made later get their rights too.
    """
    grows, deletes = _quoted(APPEND_ONLY), _quoted(DELETABLE)
    return (
        *role_statements(),
        "REVOKE ALL ON SCHEMA unwind FROM PUBLIC",
        "REVOKE ALL ON ALL ROUTINES IN SCHEMA unwind FROM PUBLIC",
        REVOKE_TEMPORARY_OBJECTS,
        _rights_of(APP_ROLE, "''", grows, deletes),
        _rights_of(READER_ROLE, _quoted(PRIVATE_TO_READERS), grows, deletes),
        *(_door(thing, right, role) for thing, (right, roles) in INTERFACE_GRANTS.items() for role in roles),
        *(_definer(role, function, grants) for role, (function, grants) in DEFINERS.items()),
    )


REVOKE_TEMPORARY_OBJECTS = """
    DO $$ BEGIN
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'everybody may make temporary objects in this database: %', SQLERRM;
    END $$
"""
"""A temporary object can stand in for a name that somebody else's statement looks up; nothing of ours makes one."""


def _definer(role: str, function: str, grants: tuple[str, ...]) -> str:
    """Hand the function to its role.  A new owner must be allowed to create in the schema for that one moment.

    Where the role is missing, or is not this login's to give, the function stays with the owner of the tables; the doctor says so.
    """
    granted = "".join(f"GRANT {grant} TO {role};\n            " for grant in grants)
    return f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            GRANT USAGE, CREATE ON SCHEMA unwind TO {role};
            {granted}ALTER FUNCTION {function} OWNER TO {role};
            REVOKE CREATE ON SCHEMA unwind FROM {role};
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'function {function} was not given to {role}: %', SQLERRM;
    END $$
    """  # noqa: S608 - constants of ours


def _door(thing: str, right: str, role: str) -> str:
    return f"""
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
            GRANT USAGE ON SCHEMA unwind TO {role};
            GRANT {right} ON {thing} TO {role};
        END IF;
    END $$
    """


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def ddl_statements() -> tuple[str, ...]:
    """All guards in their order: those of each module of models by name, then what is final.  `rights` follow each migration."""
    found: list[str] = []
    for module in sorted(m.name for m in pkgutil.walk_packages(models.__path__, "models.")):
        if module != __name__ and not module.startswith("models.migrations"):
            found.extend(getattr(importlib.import_module(module), "GUARDS", ()))
    return (*found, *TRIGGERS)
