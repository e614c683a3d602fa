"""Store: the append-only, hash-chained record of what reviewers did."""

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

from sqlmodel import Session, col, select

from medssl.errors import BadInput
from medssl.predictions_folder import Index
from medssl.review.access.reviewers import Reviewer
from medssl.review.database import Database, is_url
from medssl.review.event import START, Act, Event, faults
from medssl.review.reading import Refusal, refusal
from medssl.review.snapshot import Page


class Store:
    """Every act of every reviewer, in a file or in the database of a URL. What `record` returned is on the disk."""

    def __init__(self, place: Path | str) -> None:
        if not is_url(place) and not Path(place).absolute().parent.is_dir():
            raise BadInput(f"{place}: its folder does not exist; make it, or choose another --store")
        self._database = Database(place)
        self._page, self._turn = Page(), Lock()
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
            page = self._up_to_date(session)
            if said := refusal(act, page.reading(act.case, act.reviewer)):
                raise Refusal(said)
            stored = Event.after(page.last, act)
            session.add(stored)
            return stored

    def events(self, case: str | None = None) -> list[Event]:
        """What happened, in order, to one case or to all."""
        with self._database.read() as session:
            return _of(session, case)

    def page(self) -> Page:
        """What all of it adds up to by now, also what other processes stored; only new events are read."""
        with self._database.read() as session:
            return self._up_to_date(session)

    def faults(self, heads: Iterable[str] = ()) -> list[str]:
        """Where the chain is broken. `heads` are hashes noted earlier, elsewhere: they must still be in the chain.

        Without one, a chain whose last events were cut off looks whole.
        """
        events = self.events()
        known = {START, *(event.hash for event in events)}
        lost = [head for head in heads if head not in known]
        return faults(events) + [f"no event has the hash {head}: the chain was cut or written anew" for head in lost]

    def _up_to_date(self, session: Session) -> Page:
        """The last event is read again with those after it: if another one is in its place, so is another store."""
        with self._turn:
            last = self._page.last
            found = _of(session, start=last.id if last else 1)
            if last and found[:1] != [last]:
                self._page, found = Page(), _of(session)
            elif last:
                del found[0]
            self._page = self._page.turned(found, lambda case: _of(session, case))
            return self._page


def placed(asked: str | None, predictions: Path) -> str:
    """Where the verdicts on a predictions folder are: as asked, a URL or a file, or else beside the folder."""
    return asked if asked and is_url(asked) else str(Path(asked or beside(predictions)).absolute())


def beside(predictions: Path) -> Path:
    """Where the verdicts on a predictions folder go unless told otherwise: not into the folder that was read."""
    folder = predictions.absolute()
    return folder.with_name(f"{folder.name}-review.sqlite")


def _of(session: Session, case: str | None = None, start: int = 1) -> list[Event]:
    asked = select(Event).where(Event.id >= start).order_by(col(Event.id))
    return list(session.exec(asked if case is None else asked.where(Event.case == case)))


def record(store: Store, index: Index, who: Reviewer, case: str, action: str, **said: Any) -> Event:
    """Stores what a person did to what this model predicted; `session` and `number` name it. Raises Refusal."""
    if not who.may(action):
        raise Refusal(f"As {who.role} you may not {action}.")
    return store.record(Act(case=case, action=action, model=index.weights, reviewer=who.name, role=who.role, **said))
