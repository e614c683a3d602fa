"""Database: where events are kept, SQLite or PostgreSQL: durable, one writer at a time, the schema up to date."""

from collections.abc import Iterator
from contextlib import contextmanager
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

SCHEMES = ("sqlite", "postgresql+psycopg")
WRITERS = 0x6D656473  # any number that no other program of the server locks


class Database:
    """A file or the URL of a server; what a `write` committed survives a killed process and a lost power supply."""

    def __init__(self, place: Path | str) -> None:
        url = _url(place)
        self.name = str(url) if is_url(place) else str(place)  # a URL tells no password
        try:
            self._engine = _engine(url)
            with self.write() as session:
                _catch_up(session.connection(), self.name)
        except ModuleNotFoundError as error:
            raise BadInput(f"{self.name}: needs {error.name}; pip install 'medssl[postgres]'") from None

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that nobody else writes beside; committed at the end, or not at all."""
        try:
            with self._engine.connect().execution_options(write=True) as connection, connection.begin():
                session = Session(connection, expire_on_commit=False)
                yield session
                session.flush()
        except DBAPIError as error:
            raise BadInput(f"{self.name}: cannot keep verdicts ({str(error.orig).strip().splitlines()[0]})") from None


def is_url(place: Path | str) -> bool:
    """Whether a place is a database's URL rather than a file."""
    return "://" in str(place)


def _url(place: Path | str) -> URL:
    if not is_url(place):
        return URL.create("sqlite", database=str(place))
    try:
        url = make_url(str(place))
    except ArgumentError:
        raise BadInput("--store: not the URL of a database; postgresql+psycopg://USER@HOST/NAME") from None
    if url.drivername not in SCHEMES:
        raise BadInput(f"{url.drivername}: no database of ours; a file, or postgresql+psycopg://USER@HOST/NAME")
    return url


def _engine(url: URL) -> Engine:
    """No pool: a connection lives as long as one transaction, so that threads and kills leave nothing behind."""
    if url.drivername == "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": 30})
        event.listen(engine, "connect", _durable)
        event.listen(engine, "begin", _begin)
    else:
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 30})
        event.listen(engine, "begin", _queue)
    return engine


def _durable(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would otherwise begin transactions of its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Writers queue at the door: a read that later turns into a write could not wait for another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")


def _queue(connection: Connection) -> None:
    """The same on a server: a lock until the transaction ends, which is on the disk when it has ended."""
    if connection.get_execution_options().get("write"):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")


def _catch_up(connection: Connection, name: str) -> None:
    """Brings an older schema up to this version's; a newer one is refused."""
    if _version(connection) == _newest():
        return
    asked = _migrations()
    asked.attributes["connection"] = connection
    try:
        command.upgrade(asked, "head")
    except CommandError:
        raise BadInput(f"{name}: written by a newer medssl; update this one") from None


def _version(connection: Connection) -> str | None:
    known = inspect(connection).has_table("alembic_version")
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if known else None


@cache
def _newest() -> str | None:
    return ScriptDirectory.from_config(_migrations()).get_current_head()


def _migrations() -> Config:
    asked = Config()
    asked.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return asked
