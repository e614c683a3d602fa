"""Store: the append-only, hash-chained record of what reviewers did."""

from collections.abc import Iterable
from pathlib import Path

from sqlmodel import Session, col, select

from medssl.errors import BadInput
from medssl.review.database import Database, is_url
from medssl.review.event import START, Act, Event, faults
from medssl.review.state import Refusal, refusal


class Store:
    """Every act of every reviewer, in a file or in the database of a URL. What `record` returned is on the disk."""

    def __init__(self, place: Path | str) -> None:
        if not is_url(place) and not Path(place).absolute().parent.is_dir():
            raise BadInput(f"{place}: its folder does not exist; make it, or choose another --store")
        self._database = Database(place)
        self.name = self._database.name

    @classmethod
    def existing(cls, place: Path | str) -> "Store":
        """A store that is there already."""
        if not is_url(place) and not Path(place).is_file():
            raise BadInput(f"{place}: no verdicts here; `medssl review` writes them, --store tells where")
        return cls(place)

    def record(self, act: Act) -> Event:
        """Stores an act, once: the same (session, number) again gives the event that is there. Raises Refusal."""
        act = type(act).model_validate(act.model_dump())
        with self._database.write() as session:
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
        with self._database.read() as session:
            return _of(session, case)

    def faults(self, heads: Iterable[str] = ()) -> list[str]:
        """Where the chain is broken. `heads` are hashes noted earlier, elsewhere: they must still be in the chain.

        Without one, a chain whose last events were cut off looks whole.
        """
        events = self.events()
        known = {START, *(event.hash for event in events)}
        lost = [head for head in heads if head not in known]
        return faults(events) + [f"no event has the hash {head}: the chain was cut or written anew" for head in lost]


def placed(asked: str | None, predictions: Path) -> str:
    """Where the verdicts on a predictions folder are: as asked, a URL or a file, or else beside the folder."""
    return asked if asked and is_url(asked) else str(Path(asked or beside(predictions)).absolute())


def beside(predictions: Path) -> Path:
    """Where the verdicts on a predictions folder go unless told otherwise: not into the folder that was read."""
    folder = predictions.absolute()
    return folder.with_name(f"{folder.name}-review.sqlite")


def _of(session: Session, case: str | None) -> list[Event]:
    asked = select(Event).order_by(col(Event.id))
    return list(session.exec(asked if case is None else asked.where(Event.case == case)))
