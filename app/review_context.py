"""Gives the pages of one reader read-only access to the predictions and to the readings of the event log."""

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path

from medssl.errors import BadInput
from medssl.export.drawn_findings import DrawnFinding
from medssl.export.drawn_regions import measure_drawn_regions
from medssl.finding import Finding
from medssl.predictions_folder import FINDINGS, INDEX, LABELS, Index, read_findings, read_index
from medssl.review.access.open_cases import OpenCase, find_open_cases
from medssl.review.access.reviewers import ReviewConfig, Reviewer
from medssl.review.corrected_labels import find_top_label
from medssl.review.event_store import EventStore
from medssl.review.reading import Reading, Readings
from medssl.review.slabs.predicted_slabs import PredictedSlabs
from medssl.review.slabs.slab_files import SlabFiles
from medssl.review.snapshot import Snapshot
from medssl.review.worklist import WorklistItem


@dataclass(frozen=True)
class ReviewContext:
    """The state of the review as one reader sees it during one run of a page.

    Args:
        config: The configuration of the app.
        reviewer: The reader.
        index: The predictions that are reviewed.
        store: The event log.
    """

    config: ReviewConfig
    reviewer: Reviewer
    index: Index
    store: EventStore

    @cached_property
    def snapshot(self) -> Snapshot:
        """The readings and visits when the page started."""
        return self.store.load_snapshot()

    @property
    def readings(self) -> Readings:
        """The readings of all readers, by (case, reviewer)."""
        return self.snapshot.readings

    @cached_property
    def open_cases(self) -> list[OpenCase]:
        """The cases that readers have open, including this reader."""
        return find_open_cases(self.snapshot.visits, datetime.now(UTC), self.config.idle_minutes)

    @property
    def busy_cases(self) -> dict[str, OpenCase]:
        """The cases that other readers have open."""
        return {entry.case: entry for entry in reversed(self.open_cases) if entry.reviewer != self.reviewer.name}

    def has_open(self, case: str) -> bool:
        """Whether this reader has the case open."""
        return any((entry.case, entry.reviewer) == (case, self.reviewer.name) for entry in self.open_cases)

    @cached_property
    def comparison(self) -> Index | None:
        """The predictions of the same cases by another model; None if there are none."""
        return load_index(self.config.comparison) if self.config.comparison else None

    def list_cases(self) -> list[WorklistItem]:
        """Returns every case with readable findings."""
        items = []
        for number in range(1, len(self.index.cases) + 1):
            with suppress(BadInput, OSError):  # one damaged case must not hide the others
                items.append(self.load_case(number))
        return items

    def load_case(self, number: int) -> WorklistItem:
        """Returns the case at position `number` of the index, from 1.

        Its findings are the predicted ones and those that this reader added, with the sizes after the reader's strokes.
        """
        case = self.index.cases[number - 1]
        study = self.index.find_study(case)
        return WorklistItem(number, case, self.list_findings(case), self.get_reading(case), study.date)

    def list_findings(self, case: str) -> tuple[Finding, ...]:
        """Returns the predicted findings of a case and those that this reader added, with their current sizes."""
        return tuple(item.finding for item in self.measure_findings(case) if item.is_listed)

    def measure_findings(self, case: str) -> tuple[DrawnFinding, ...]:
        """Returns the findings of a case with the sizes that they have after this reader's strokes."""
        reading = self.get_reading(case)
        path = self.index.case_folder(case) / LABELS
        findings = (*load_findings(self.index, case), *reading.added)
        if not reading.strokes:
            return tuple(DrawnFinding(finding, number) for number, finding in enumerate(findings, 1))
        acts = tuple(event.id for event in reading.strokes), tuple(finding.id for finding in reading.added)
        return _measure_findings(_Drawing(path, path.stat().st_mtime_ns, *acts, self.index, reading))

    def get_reading(self, case: str) -> Reading:
        """Returns this reader's reading of a case, which may be empty."""
        return self.snapshot.get_reading(case, self.reviewer.name)

    def find_sign_off(self, case: str) -> int | None:
        """Returns the id of the latest sign-off or consensus of a case; None if no reading of it is signed."""
        if not any(reading.signed_at for (name, _), reading in self.readings.items() if name == case):
            return None
        return max(event.id for event in self.store.read_events(case) if event.action in ("sign", "consensus"))

    @property
    def reader_key(self) -> str:
        """A key under which the browser keeps what this reader prefers, in all predictions."""
        return hashlib.sha256(self.reviewer.name.encode()).hexdigest()[:10]

    @cached_property
    def browser_key(self) -> str:
        """A key that separates what the browser stores for this reader, predictions and event log from other data."""
        identity = f"{self.reviewer.name}/{self.index.folder.absolute()}/{self.index.created}/{self.store.name}"
        return hashlib.sha256(identity.encode()).hexdigest()[:10]

    def get_viewer_key(self, number: int | str) -> str:
        """Returns the key under which the browser keeps the acts of this reader on the case at a position."""
        return f"viewer-{self.browser_key}-{number}"


def read_config() -> ReviewConfig:
    """Returns the configuration that the app was started with."""
    return ReviewConfig.from_environment()


def load_context(reviewer: Reviewer) -> ReviewContext:
    """Returns the context of a reader; raises BadInput if there are no predictions."""
    config = read_config()
    return ReviewContext(config, reviewer, load_index(config.predictions), _open_store(config.audit_db))


def load_index(folder: str) -> Index:
    """Returns the index of a predictions folder; reads it again only if the file has changed."""
    path = Path(folder) / INDEX
    return _read_index(folder, path.stat().st_mtime_ns if path.is_file() else 0)


def load_findings(index: Index, case: str) -> tuple[Finding, ...]:
    """Returns the predicted findings of a case; reads them again only if the file has changed."""
    path = index.case_folder(case) / FINDINGS
    return _read_findings(path, path.stat().st_mtime_ns)


@dataclass(frozen=True)
class _Drawing:
    """What a reader drew on a case; two are equal if they come from the same files and strokes."""

    path: Path
    modified_ns: int
    strokes: tuple[int, ...]
    added: tuple[str, ...]
    index: Index = field(compare=False)
    reading: Reading = field(compare=False)


@lru_cache(maxsize=500)
def _measure_findings(drawing: _Drawing) -> tuple[DrawnFinding, ...]:
    predicted = _open_prediction(drawing.path, drawing.modified_ns, find_top_label(drawing.index))
    names = {label.value: label.name for label in drawing.index.labels}
    return measure_drawn_regions(predicted, drawing.reading, names)


@lru_cache(maxsize=2)
def _open_prediction(path: Path, modified_ns: int, top: int) -> PredictedSlabs:
    return PredictedSlabs.read(_get_slab_files().open(path, "label"), path.parent, top)


@lru_cache(maxsize=1)
def _get_slab_files() -> SlabFiles:
    return SlabFiles()


@lru_cache(maxsize=4)
def _open_store(location: str) -> EventStore:
    return EventStore(location)


@lru_cache(maxsize=4)
def _read_index(folder: str, modified_ns: int) -> Index:
    return read_index(folder)


@lru_cache(maxsize=2000)
def _read_findings(path: Path, modified_ns: int) -> tuple[Finding, ...]:
    return read_findings(path.parent)
