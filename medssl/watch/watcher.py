"""Predicts complete studies and sends their documents; every step can be repeated after a kill at any moment."""

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from medssl.data.ingest.read_source import list_series_scans
from medssl.data.ingest.source import make_pseudonym
from medssl.errors import BadInput
from medssl.export.predicted_documents import PredictedDocuments
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.io.dimse.study_inbox import InboxStudy, StudyInbox
from medssl.predictions_folder import read_findings, read_index
from medssl.volume import Volume
from medssl.watch.destination import Destination
from medssl.watch.source import StudySource
from medssl.watch.study_state import StudyState

FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 1800.0  # between two tries to send
STUDIES, PREDICTIONS, DOCUMENTS = "studies", "predictions", "documents"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WatchOptions:
    """What is predicted, and when.

    Args:
        out: The folder of the results.
        quiet_s: A study is complete when no file of it arrived for this time, in seconds.
        modalities: Modalities of the series that are predicted; empty for all that the network knows.
        body_parts: Values of BodyPartExamined of the series that are predicted; empty for all.
    """

    out: Path
    quiet_s: float = 60.0
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()


@runtime_checkable
class CasePrediction(Protocol):
    """What predicts the series of a study, as `medssl.models.prediction.prepared.PreparedPrediction` does."""

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights."""

    def stream(self, volume: Volume, case: str) -> PredictionSource:
        """Predicts a case while the result is read."""

    def open_writer(self, folder: Path, cases: Sequence[str], resume: bool, **options: Any) -> PredictionWriter:
        """Returns a writer for the predictions of cases."""


class Watcher:
    """Watches one inbox.

    Args:
        source: What is watched.
        prediction: The runs that predict.
        destinations: Where the documents go.
        options: What is predicted, and when.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(
        self,
        source: StudySource,
        prediction: CasePrediction,
        destinations: Sequence[Destination],
        options: WatchOptions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.source, self.prediction, self.destinations = source, prediction, tuple(destinations)
        self.options, self.clock = options, clock
        self.inbox = StudyInbox(source.folder)
        self.counts, self.problem, self.last_pass = Counter[str](), "", clock()

    def run_pass(self) -> bool:
        """Looks for studies once, and does what can be done now; returns whether a study waits for time to pass."""
        self._refresh()
        counts, problems = Counter[str](), [self.problem] * bool(self.problem)
        for study in self.inbox.list_studies():
            try:
                state = self._handle_study(study)
            except (BadInput, OSError) as error:  # a damaged state or a full disk; the other studies go on
                log.warning("%s: %s", make_pseudonym(study.uid), error)
                problems.append(str(error))
                counts["waiting"] += 1
                continue
            counts[state.status if state else "waiting"] += 1
            if state and state.status == "predicted":
                problems.append(state.reason)
        self.counts, self.problem, self.last_pass = counts, next(iter(problems), ""), self.clock()
        return bool(counts["waiting"] + counts["predicted"])

    def _refresh(self) -> None:
        """Brings new files into the folder; a source that is away is reported once until it is back."""
        problem = ""
        try:
            self.source.refresh()
        except BadInput as error:
            problem = str(error)
            if problem != self.problem:
                log.warning("%s", problem)
        self.problem = problem

    def _handle_study(self, study: InboxStudy) -> StudyState | None:
        """Returns the state of a study after what could be done for it; None if it is not complete yet."""
        folder = self.options.out / STUDIES / make_pseudonym(study.uid)
        state = StudyState.read(folder)
        if state is None or not study.instances <= set(state.instances):  # removed files change nothing
            if self.clock() - study.changed_at < self.options.quiet_s:
                return None
            state = self._predict(study, folder)
        if state and state.status == "predicted" and state.retry_at <= self.clock():
            state = self._send(state, folder)
        return state

    def _predict(self, study: InboxStudy, folder: Path) -> StudyState | None:
        """Predicts a complete study and writes its documents; returns None if it has grown meanwhile."""
        start = self.clock()
        instances = sorted(study.instances)
        files = study.select(self.options.modalities, self.options.body_parts)
        if not files:
            return self._record(StudyState(instances, "skipped", reason="no series of this kind"), folder)
        version = folder / f"{study.version[:12]}-{self.prediction.weights_sha256[:8]}"
        reason = ""
        try:
            scans = list_series_scans(files)
            documents = PredictedDocuments.open(version / DOCUMENTS, resume=True)
            writer = self.prediction.open_writer(version / PREDICTIONS, [scan.case for scan in scans], resume=True)
            writer.predict_all(scans, self.prediction.stream, on_case=documents.add_scan)
            documents.require_complete()
        except BadInput as error:
            reason = str(error)
        if any(now.uid == study.uid and not now.instances <= study.instances for now in self.inbox.list_studies()):
            log.info("%s: has grown while it was predicted; it is predicted again", folder.name)
            shutil.rmtree(version, ignore_errors=True)
            return None
        if not any((version / DOCUMENTS).glob("*/*.dcm")):
            return self._record(StudyState(instances, "failed", reason=reason or "no document"), folder)
        summary = f"{_summarize(version / PREDICTIONS)} in {self.clock() - start:.0f} s"
        documents_folder = str((version / DOCUMENTS).relative_to(folder))
        state = StudyState(instances, "predicted", documents_folder, summary, reason)
        state.write(folder)
        return state

    def _send(self, state: StudyState, folder: Path) -> StudyState:
        """Sends the documents to the destinations that do not have them yet."""
        paths = sorted((folder / state.documents).glob("*/*.dcm"))
        for destination in self.destinations:
            if destination.name in state.sent_to:
                continue
            try:
                destination.send(paths)
            except BadInput as error:
                pause_s = min(FIRST_PAUSE_S * 2**state.num_tries, LONGEST_PAUSE_S)
                log.warning("%s: not sent, next try in %.0f s: %s", folder.name, pause_s, error)
                state = replace(
                    state, num_tries=state.num_tries + 1, retry_at=self.clock() + pause_s, reason=str(error)
                )
                state.write(folder)
                return state
            state = replace(state, sent_to=[*state.sent_to, destination.name])
            state.write(folder)
        return self._record(replace(state, status="done", num_tries=0, retry_at=0.0), folder)

    def _record(self, state: StudyState, folder: Path) -> StudyState:
        """Writes a final state, and the line of the study in the log."""
        state.write(folder)
        sent = f"sent to {', '.join(state.sent_to)}" if state.sent_to else ""
        parts = (state.status, state.summary, sent, state.reason if state.status != "done" else "")
        log.info("%s: %s", folder.name, ", ".join(filter(None, parts)))
        return state


def _summarize(predictions: Path) -> str:
    """Returns the number of series and of findings, for example "1 series, 4 findings"."""
    index = read_index(predictions)
    num_findings = sum(len(read_findings(index.case_folder(case))) for case in index.cases)
    missing = f" ({len(index.missing_cases)} left out)" if index.missing_cases else ""
    return f"{len(index.cases)} series{missing}, {num_findings} finding{'s' * (num_findings != 1)}"
