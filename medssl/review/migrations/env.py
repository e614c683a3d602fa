"""What alembic runs to change a database: the changes, on the connection and in the transaction it was handed."""

from alembic import context


def run() -> None:
    """Applies the changes; the transaction is that of whoever asked, so a change happens whole or not at all."""
    context.configure(connection=context.config.attributes["connection"])
    context.run_migrations()


if __name__ == "env_py":  # the name under which alembic loads this file
    run()
