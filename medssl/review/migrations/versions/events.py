"""Creates the table of events, which rejects updates and deletions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "events", None

COLUMNS = {
    "session": sa.String, "number": sa.Integer, "case": sa.String, "reviewer": sa.String, "role": sa.String,
    "action": sa.String, "finding": sa.String, "label": sa.Integer, "reason": sa.String, "note": sa.String,
    "target": sa.Integer, "details": sa.String, "mask": sa.LargeBinary, "model": sa.String, "dwell_ms": sa.Integer,
    "id": sa.Integer, "at": sa.String, "version": sa.String, "prev_hash": sa.String, "hash": sa.String,
}  # fmt: skip
NULLABLE = ("label", "target", "mask")


def upgrade() -> None:
    """Creates the table and its triggers; a database from before the first migration already has the table."""
    if not sa.inspect(op.get_bind()).has_table("event"):
        columns: list[sa.Column[Any]] = [
            sa.Column(name, kind, nullable=name in NULLABLE) for name, kind in COLUMNS.items()
        ]
        op.create_table("event", *columns, sa.PrimaryKeyConstraint("id"), sa.UniqueConstraint("session", "number"))
    (_create_postgresql_trigger if op.get_bind().dialect.name == "postgresql" else _create_sqlite_triggers)()


def _create_sqlite_triggers() -> None:
    for operation in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER IF NOT EXISTS no_{operation.lower()} BEFORE {operation} ON event "
            "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
        )


def _create_postgresql_trigger() -> None:
    op.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql "
        "AS $$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON event "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
    )
