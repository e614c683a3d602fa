"""Opens the SQLite or PostgreSQL database of an event log: durable, one writer at a time, schema up to date."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, inspect, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlmodel import Session, text

from medssl.errors import BadInput

DRIVERS = ("sqlite", "postgresql+psycopg")
WRITE_LOCK = 0x6D656473  # the key of a PostgreSQL advisory lock; arbitrary, but unlikely to be used by other programs


class Database:
    """A database of events; what a `write` has committed survives a killed process and a power failure.

    Args:
        location: The path of a SQLite file or the URL of a database.

    Raises:
        BadInput: If the location is not supported, or the database was written by a newer version.
    """

    def __init__(self, location: Path | str) -> None:
        url = _parse_url(location)
        self.name = str(url) if is_url(location) else str(location)  # str(url) hides the password
        try:
            self._engine = _create_engine(url)
            with self.write() as session:
                _upgrade_schema(session.connection(), self.name)
        except ModuleNotFoundError as error:
            raise BadInput(f"{self.name}: needs {error.name}; pip install 'medssl[postgres]'") from None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yields a session that reads one consistent state of the database."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yields the only session that writes; its changes are committed together at the end, or not at all."""
        try:
            with self._engine.connect().execution_options(write=True) as connection, connection.begin():
                session = Session(connection, expire_on_commit=False)
                yield session
                session.flush()
        except DBAPIError as error:
            raise BadInput(f"{self.name}: cannot store verdicts ({str(error.orig).strip().splitlines()[0]})") from None


def is_url(location: Path | str) -> bool:
    """Whether a location is the URL of a database rather than the path of a file."""
    return "://" in str(location)


def _parse_url(location: Path | str) -> URL:
    if not is_url(location):
        return URL.create("sqlite", database=str(location))
    try:
        url = make_url(str(location))
    except ArgumentError:
        raise BadInput("--audit-db: not the URL of a database; give postgresql+psycopg://USER@HOST/NAME") from None
    if url.drivername not in DRIVERS:
        raise BadInput(
            f"{url.drivername}: not a supported database; give a file or postgresql+psycopg://USER@HOST/NAME"
        )
    return url


def _create_engine(url: URL) -> Engine:
    """Returns an engine without a pool: a connection lives for one transaction, so a killed process leaves none."""
    if url.drivername == "sqlite":
        _make_private(Path(url.database or ""))
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": 30})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 30})
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _make_private(path: Path) -> None:
    """Creates the file with mode 0600, or takes the access of other users away; SQLite's further files follow it.

    What cannot be created or changed is left to SQLite, which names the reason.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with suppress(OSError):
        if path.stat().st_mode & 0o007:
            path.chmod(path.stat().st_mode & 0o770)


def _configure_sqlite(connection: Any, _: Any) -> None:
    """Writes every commit to the disk before it returns."""
    connection.isolation_level = None  # keeps the driver from starting transactions of its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Takes the write lock at the start: a read that later turns into a write could not wait for another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    """Takes the write lock at the start; the transaction is on disk when it ends."""
    if connection.get_execution_options().get("write"):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")


def _upgrade_schema(connection: Connection, name: str) -> None:
    """Migrates an older schema to that of this version; raises BadInput for a newer one."""
    if _read_revision(connection) == _get_head_revision():
        return
    config = _build_alembic_config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise BadInput(f"{name}: written by a newer medssl; update medssl on this machine") from None


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@cache
def _get_head_revision() -> str | None:
    return ScriptDirectory.from_config(_build_alembic_config()).get_current_head()


def _build_alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config
