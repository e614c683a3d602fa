"""The migrations, one file each; alembic orders them by `down_revision`."""
