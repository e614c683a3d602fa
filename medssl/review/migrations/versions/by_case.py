"""Adds an index by case, so that the events of one case are found without reading all events."""

from alembic import op

revision, down_revision = "by_case", "events"


def upgrade() -> None:
    """Creates the index."""
    op.create_index("event_by_case", "event", ["case"])
