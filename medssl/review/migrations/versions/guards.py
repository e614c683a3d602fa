"""Adds the evidence of an event, and a guard against events that replace others or do not follow the last one."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "guards", "by_case"
REPLACES = "events are append-only: an event with this id, or this session and number, is stored already"
BREAKS_CHAIN = "events are append-only: a new event must follow the last one"


def upgrade() -> None:
    """Adds the column and the guard; PostgreSQL's trigger on updates refuses INSERT ... ON CONFLICT already."""
    op.add_column("event", sa.Column("evidence", sa.String, nullable=False, server_default=""))
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER no_replacement BEFORE INSERT ON event BEGIN "
            f"SELECT RAISE(ABORT, '{REPLACES}') WHERE EXISTS "
            "(SELECT 1 FROM event WHERE id = NEW.id OR (session = NEW.session AND number = NEW.number)); "
            f"SELECT RAISE(ABORT, '{BREAKS_CHAIN}') WHERE NEW.id <> (SELECT COALESCE(MAX(id), 0) + 1 FROM event) "
            "OR EXISTS (SELECT 1 FROM event WHERE id = NEW.id - 1 AND hash <> NEW.prev_hash); END"
        )
