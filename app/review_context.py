"""What a page works with: the predictions, the store, the person reading, and a way to record what they do."""

import hashlib
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import streamlit as st

from medssl.errors import BadInput
from medssl.finding import Finding
from medssl.predictions_folder import FINDINGS, INDEX, Index, read_findings, read_index
from medssl.review.access.open_cases import Lock, locks
from medssl.review.access.reviewers import Access, Reviewer
from medssl.review.access.signed_links import Kind, Link
from medssl.review.event_store import Store, record
from medssl.review.image_files import FILES
from medssl.review.reading import Readings, Refusal
from medssl.review.snapshot import Page
from medssl.review.worklist import Row

LINK_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Desk:
    """One reader's desk during one run of a page. Nothing here outlives the run: drafts live in the store."""

    access: Access
    reviewer: Reviewer
    index: Index
    store: Store

    @cached_property
    def _page(self) -> Page:
        return self.store.page()

    @property
    def readings(self) -> Readings:
        """Every reading that there is, by (case, reviewer)."""
        return self._page.readings

    @cached_property
    def locks(self) -> list[Lock]:
        """Who has which case open."""
        return locks(self._page.visits, datetime.now(UTC), self.access.idle_minutes)

    @property
    def busy(self) -> dict[str, Lock]:
        """The cases that somebody else has open."""
        return {lock.case: lock for lock in reversed(self.locks) if lock.holder != self.reviewer.name}

    def open(self, row: Row) -> None:
        """Tells the others that this reader has the case open, unless they know."""
        mine = any((lock.case, lock.holder) == (row.case, self.reviewer.name) for lock in self.locks)
        if not mine and not row.reading.signed_at:
            self.record(row, "open")

    @cached_property
    def rival(self) -> Index | None:
        """What another model predicted of the same cases."""
        return index(self.access.rival) if self.access.rival else None

    def rows(self) -> list[Row]:
        """Every case as this reader sees it; not those whose findings are gone or damaged."""
        found = []
        for number in range(1, len(self.index.cases) + 1):
            with suppress(BadInput, OSError):  # one lost case must not take the others from the readers
                found.append(self.row(number))
        return found

    def row(self, number: int) -> Row:
        """The `number`-th case, with the findings of the model and those that this reader added."""
        case = self.index.cases[number - 1]
        reading = self._page.reading(case, self.reviewer.name)
        return Row(number, case, (*findings(self.index, case), *reading.added), reading, self.index.study(case).date)

    @cached_property
    def mark(self) -> str:
        """Tells this reader and these predictions from others that the browser may know from the same address."""
        said = f"{self.reviewer.name}/{self.index.folder.absolute()}/{self.index.created}"
        return hashlib.sha256(said.encode()).hexdigest()[:10]

    def stored(self, row: Row, number: int) -> int | None:
        """The id of what the viewer of this case sent under a number; also before the page was loaded again."""
        mine = [e for e in self.store.events(row.case) if e.reviewer == self.reviewer.name and e.session != session()]
        return next((e.id for e in reversed(mine) if e.number == number), None)

    def has(self, row: Row, kind: Kind) -> bool:
        """Whether the model told this of the case."""
        return (self.index.case(row.case) / FILES[kind]).is_file()

    def url(self, number: int, kind: Kind, event: int = 0) -> str:
        """The address of an image: the same for as long as this reader stays, so that the browser keeps the voxels."""
        known = st.session_state.setdefault("urls", {})
        until, url = known.get((number, kind, event), (0, ""))
        if until < time.time() + LINK_SECONDS / 2:
            until = int(time.time()) + LINK_SECONDS
            token = Link(number, kind, event, until).token(self.access.key)
            url = f"/api/volume/{token}/header.json"
            known[number, kind, event] = until, url
        return url

    def record(self, row: Row, action: str, **said: Any) -> None:
        """Stores what the reader did; what does not fit is told, and changes nothing."""
        number = st.session_state["number"] = st.session_state.get("number", 0) + 1
        self.deliver(row, action, session=session(), number=number, **said)

    def deliver(self, row: Row, action: str, **said: Any) -> None:
        """Stores an act that already has its session and number."""
        try:
            record(self.store, self.index, self.reviewer, row.case, action, **said)
        except Refusal as refusal:
            st.session_state["refusal"] = str(refusal)


def session() -> str:
    """The name of this visit: no two pages that are open at once share one."""
    return st.session_state.setdefault("session", uuid.uuid4().hex)


def access() -> Access:
    """What the app was started with."""
    return Access.from_environment()


def desk(reviewer: Reviewer) -> Desk:
    """The desk of whoever is reading now."""
    asked = access()
    return Desk(asked, reviewer, index(asked.predictions), _store(asked.store))


def index(folder: str) -> Index:
    """What a predictions folder holds."""
    path = Path(folder) / INDEX
    return _index(folder, path.stat().st_mtime_ns if path.is_file() else 0)


def findings(index: Index, case: str) -> tuple[Finding, ...]:
    """What a model found in a case."""
    path = index.case(case) / FINDINGS
    return _findings(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _store(path: str) -> Store:
    return Store(path)


@lru_cache(maxsize=4)
def _index(folder: str, changed_ns: int) -> Index:
    return read_index(folder)


@lru_cache(maxsize=2000)
def _findings(path: Path, changed_ns: int) -> tuple[Finding, ...]:
    return read_findings(path.parent)
