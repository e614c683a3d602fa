"""Finds the events of one case without reading those of all others."""

from alembic import op

revision, down_revision = "by_case", "events"


def upgrade() -> None:
    """Adds the index."""
    op.create_index("event_by_case", "event", ["case"])
