"""The alembic migrations of the review database."""
