"""Runs the migrations; alembic loads this file."""

from alembic import context


def run() -> None:
    """Applies the migrations in the transaction of the given connection, so that they succeed as a whole or not."""
    context.configure(connection=context.config.attributes["connection"])
    context.run_migrations()


if __name__ == "env_py":  # the name under which alembic loads this file
    run()
