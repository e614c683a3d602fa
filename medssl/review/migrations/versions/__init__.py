"""One change of the schema a file; alembic orders them by what each says it follows."""
