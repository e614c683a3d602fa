"""Store: the append-only, hash-chained record of what reviewers did, in SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import DDL, Connection, Engine, NullPool, create_engine
from sqlalchemy import event as sa_event
from sqlmodel import Session, SQLModel, col, select

from medssl.errors import BadInput
from medssl.review.event import Act, Event, faults
from medssl.review.state import Refusal, refusal


class Store:
    """Every act of every reviewer. What `record` returned survives a killed process and a lost power supply."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.absolute().parent.is_dir():
            raise BadInput(f"{path}: its folder does not exist; make it, or choose another --store")
        self._engine = _engine(self.path)
        with self._write() as session:
            SQLModel.metadata.create_all(session.connection(), tables=[SQLModel.metadata.tables["event"]])
            for refused in ("UPDATE", "DELETE"):
                session.execute(_trigger(refused))

    @classmethod
    def existing(cls, path: Path | str) -> "Store":
        """A store that is there already."""
        if not Path(path).is_file():
            raise BadInput(f"{path}: no verdicts here; `medssl review` writes them, --store tells where")
        return cls(path)

    def record(self, act: Act) -> Event:
        """Stores an act, once: the same (session, number) again gives the event that is there. Raises Refusal."""
        act = type(act).model_validate(act.model_dump())
        with self._write() as session:
            known = session.exec(select(Event).where(Event.session == act.session, Event.number == act.number)).first()
            if known and known.says(act):
                return known
            if known:
                raise Refusal(f"number {act.number} of this session was used for something else; reload the page")
            if said := refusal(act, _of(session, act.case)):
                raise Refusal(said)
            last = session.exec(select(Event).order_by(col(Event.id).desc()).limit(1)).first()
            stored = Event.after(last, act)
            session.add(stored)
            return stored

    def events(self, case: str | None = None) -> list[Event]:
        """What happened, in order, to one case or to all."""
        with Session(self._engine, expire_on_commit=False) as session:
            return _of(session, case)

    def faults(self, head: str | None = None) -> list[str]:
        """Where the chain is broken. `head` is a hash noted earlier, elsewhere: it must still be in the chain."""
        events = self.events()
        lost = head is not None and head not in {e.hash for e in events}
        return faults(events) + ([f"no event has the hash {head}: the chain was cut or written anew"] if lost else [])

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with self._engine.connect().execution_options(write=True) as connection, connection.begin():
            session = Session(connection, expire_on_commit=False)
            yield session
            session.flush()


def beside(predictions: Path) -> Path:
    """Where the verdicts on a predictions folder go unless told otherwise: not into the folder that was read."""
    folder = predictions.absolute()
    return folder.with_name(f"{folder.name}-review.sqlite")


def _of(session: Session, case: str | None) -> list[Event]:
    asked = select(Event).order_by(col(Event.id))
    return list(session.exec(asked if case is None else asked.where(Event.case == case)))


def _engine(path: Path) -> Engine:
    """No pool: a connection lives as long as one transaction, so that threads and kills leave nothing behind."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": 30})
    sa_event.listen(engine, "connect", _durable)
    sa_event.listen(engine, "begin", _begin)
    return engine


def _durable(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would otherwise begin transactions of its own
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Writers queue at the door: a read that later turns into a write could not wait for another writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")


def _trigger(refused: str) -> DDL:
    return DDL(
        f"CREATE TRIGGER IF NOT EXISTS no_{refused.lower()} BEFORE {refused} ON event "
        "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
    )
