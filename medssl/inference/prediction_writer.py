"""Writes a predictions folder, which holds only complete cases and a valid index at every moment."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from medssl.data.class_kinds import propose_kinds
from medssl.data.ingest.read_source import ScanRef
from medssl.data.worker_pool import RUN_HERE, JobRunner
from medssl.errors import BadInput, Message
from medssl.files import atomic_folder, check_writable, open_part, write_checksums, write_json
from medssl.finding import FindingKind
from medssl.inference.patient_scores import write_patient_scores
from medssl.inference.streaming.case_files import predict_case, report_worker_death, write_case
from medssl.inference.streaming.case_stream import PredictionSource
from medssl.inference.streaming.progress import report_progress
from medssl.io.nifti_writer import NO_FIELDS, NiftiFields
from medssl.predictions_folder import (
    CASE_PATTERN,
    INDEX,
    Index,
    LabelDef,
    StudyRef,
    read_index,
)
from medssl.render.planes import Colour, default_colour
from medssl.version import __version__
from medssl.volume import Volume

RESUME_FIELDS = ("labels", "uncertainty", "temperature", "thresholds", "guarantee", "calibrated_on")
REDACTED = "the reason is not recorded, since it may name a person; predict again with --resume to see it"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionWriter:
    """Adds cases to a predictions folder; the folder is created with its first case."""

    index: Index

    @classmethod
    def create(
        cls,
        folder: Path | str,
        names: Mapping[int, str],
        model: Mapping[str, Any],
        kinds: Mapping[int, FindingKind] | None = None,
        **index_fields: Any,
    ) -> "PredictionWriter":
        """Returns a writer for a new folder.

        Args:
            folder: A folder that does not exist yet.
            names: The class names by label value.
            model: What made the predictions: `run` and `weights_sha256`.
            kinds: The kind of each class; None proposes them from the names.
            **index_fields: Optional fields of the index, as `uncertainty` or `requested`.
        """
        folder = Path(folder)
        check_writable(folder)
        if (folder / INDEX).is_file() and (missing := read_index(folder).missing_cases):
            raise BadInput(f"{folder}: {len(missing)} cases are missing there; add --resume, or choose another --out")
        if folder.exists():
            raise BadInput(f"{folder}: exists already; choose another --out, or remove it")
        created = datetime.now(UTC).isoformat(timespec="seconds")
        model = {"version": __version__} | dict(model)
        return cls(Index(folder, (), {}, make_label_defs(names, kinds), model, created, **index_fields))

    @classmethod
    def resume(
        cls,
        folder: Path | str,
        names: Mapping[int, str],
        model: Mapping[str, Any],
        kinds: Mapping[int, FindingKind] | None = None,
        **index_fields: Any,
    ) -> "PredictionWriter":
        """Returns a writer that continues a folder, or starts a new one; the arguments are those of `create`.

        Raises:
            BadInput: The folder was started with another model, calibration or options.
        """
        if not Path(folder).exists():
            return cls.create(folder, names, model, kinds, **index_fields)
        old = read_index(folder)
        labels, model = make_label_defs(names, kinds), {"version": __version__} | dict(model)
        new = replace(old, labels=labels, model=model, **index_fields)
        different = [name for name in RESUME_FIELDS if getattr(old, name) != getattr(new, name)]
        different += ["model"] * (_without_run_paths(old.model) != _without_run_paths(new.model))
        different += [
            f"--{key}" for key in {**old.options, **new.options} if old.options.get(key) != new.options.get(key)
        ]
        if different:
            raise BadInput(f"{folder}: was started with another {', '.join(different)}; choose another --out")
        removed = [case for case in old.failed if case not in new.requested]
        requested = [case for case in dict.fromkeys([*old.requested, *new.requested]) if case not in removed]
        failed = {case: reason for case, reason in old.failed.items() if case not in removed}
        return cls(replace(old, requested=requested, failed=failed))

    def add(
        self,
        case: str,
        image: Volume,
        prediction: PredictionSource,
        study: StudyRef | None = None,
        fields: NiftiFields = NO_FIELDS,
    ) -> "PredictionWriter":
        """Writes one case and returns the writer with it; if the process is killed, the folder stays as it was.

        Args:
            case: The id of the case, also the name of its subfolder.
            image: The image that was predicted.
            prediction: Its prediction.
            study: The patient and the time of the scan.
            fields: The fields of the header of the scan's NIfTI file.
        """
        self._require_new_name(case)
        self._require_unchanged()
        with open_part(self.index.folder) as part:
            write_case(part / "case", image, prediction, self._num_labels, fields)
            return self._adopt(case, part / "case", image.unit, study)

    def _adopt(self, case: str, files: Path, unit: str, study: StudyRef | None) -> "PredictionWriter":
        """Moves the files of a case into the folder and returns the writer with it."""
        folder = self.index.folder
        self._require_new_name(case)
        self._require_unchanged()
        if not folder.exists():
            with atomic_folder(folder) as new_folder:  # a folder without an index could not be continued
                _write_index(replace(self.index, folder=new_folder))
        if (folder / case).exists():  # left by a process that was killed before it could update the index
            shutil.rmtree(folder / case)
        files.replace(folder / case)
        index = replace(
            self.index,
            cases=(*self.index.cases, case),
            units=self.index.units | {case: unit},
            studies=self.index.studies | {case: study or StudyRef()},
            failed={name: reason for name, reason in self.index.failed.items() if name != case},
        )
        _write_index(index)
        write_checksums(folder, (INDEX, *sorted(f"{case}/{path.name}" for path in (folder / case).iterdir())))
        return PredictionWriter(index)

    @property
    def _num_labels(self) -> int:
        return max((label.value for label in self.index.labels), default=0)

    def _require_new_name(self, case: str) -> None:
        if not CASE_PATTERN.fullmatch(case) or case in (*self.index.cases, INDEX):
            raise BadInput(f"{case!r} cannot name a folder of predictions (letters, digits, . _ -; each name once)")

    def mark_failed(self, case: str, reason: Message) -> "PredictionWriter":
        """Records why a case could not be predicted, without text that could identify a patient."""
        index = replace(self.index, failed=self.index.failed | {case: str(reason.redact(REDACTED))})
        return self._with_index(index)

    def _with_index(self, index: Index) -> "PredictionWriter":
        """Returns the writer with a new index, which is written to disk if the folder has a case already."""
        if index.cases:
            self._require_unchanged()
            _write_index(index)
            write_checksums(index.folder, (INDEX,))
        return PredictionWriter(index)

    def _require_unchanged(self) -> None:
        """Raises BadInput if another process has written to the folder meanwhile."""
        folder = self.index.folder
        if (folder / INDEX).is_file() and read_index(folder).cases != self.index.cases:
            raise BadInput(f"{folder}: another process writes there; wait until it ends and continue with --resume")

    def predict_all(
        self,
        scans: Sequence[ScanRef],
        predict: Callable[[Volume, str], PredictionSource],
        include_dates: bool = False,
        on_case: Callable[[Index, ScanRef], None] | None = None,
        run_jobs: JobRunner = RUN_HERE,
    ) -> "PredictionWriter":
        """Predicts all scans that the folder does not have yet, reports the progress, and writes patients.csv.

        A scan that cannot be read or predicted is recorded with the reason, and the others go on.

        Args:
            scans: The scans to predict.
            predict: Maps an image and a case id to a prediction.
            include_dates: Write the dates of the studies, which can identify a person.
            on_case: Called with each of the scans that the folder holds: first those of an earlier call, then each new
                one once it is written.
            run_jobs: Runs the predictions, in this process or in others, see `make_job_runner`.

        Raises:
            BadInput: Cases are missing at the end.
        """
        studies, errors = make_study_refs(scans, include_dates), dict[str, str]()
        writer = self._with_index(replace(self.index, studies=_update_studies(self.index, studies)))
        todo = [scan for scan in scans if scan.case not in self.index.cases]
        for scan in scans:
            if on_case and scan.case in self.index.cases:
                on_case(writer.index, scan)
        with open_part(self.index.folder) as part:
            work = partial(predict_case, predict=predict, folder=part, num_labels=self._num_labels)
            for scan, outcome in report_progress(run_jobs(todo, work, report_worker_death), len(todo)):
                if outcome.folder is None:
                    errors[scan.case] = outcome.text
                    writer = writer.mark_failed(scan.case, outcome.reason)
                    if len(todo) > 1:
                        log.warning("%s: left out: %s", scan.case, outcome.text)
                    continue
                writer = writer._adopt(scan.case, outcome.folder, outcome.unit, studies[scan.case])
                if on_case:
                    on_case(writer.index, scan)
        if writer.index.cases:
            write_patient_scores(writer.index)
        writer.require_complete(errors)
        return writer

    def require_complete(self, errors: Mapping[str, str]) -> None:
        """Raises BadInput if requested cases are missing; `errors` holds the reasons by case."""
        index = self.index
        if not (missing := index.missing_cases):
            return
        first = f"{missing[0]}: {errors.get(missing[0], 'is not among the given scans')}"
        if len(index.requested) == 1:
            raise BadInput(first)
        others = f"; also {', '.join(missing[1:6])}{' ...' * (len(missing) > 6)}" if len(missing) > 1 else ""
        message = f"{len(missing)} of {len(index.requested)} cases could not be predicted: {first}{others}"
        raise BadInput(f"{message}; fix or remove them, and continue with --resume")


def make_study_refs(scans: Iterable[ScanRef], include_dates: bool = False) -> dict[str, StudyRef]:
    """Returns the patient of each scan, and the days since the first of the patient's scans.

    Args:
        scans: The scans to predict.
        include_dates: Include the dates of the studies.
    """
    scans = list(scans)
    days = sorted((scan.patient, scan.day) for scan in scans if scan.day is not None)
    first_day = dict(reversed(days))  # the last entry of a patient wins, which is the earliest day
    return {scan.case: StudyRef(scan.patient) for scan in scans} | {
        scan.case: StudyRef(
            scan.patient, scan.date.replace("-", "") if include_dates else "", scan.day - first_day[scan.patient]
        )
        for scan in scans
        if scan.day is not None
    }


def _update_studies(index: Index, studies: Mapping[str, StudyRef]) -> dict[str, StudyRef]:
    """Returns the studies of the cases in a folder, updated by those of the given scans.

    Days count from a patient's first given scan, so the days of the patient's other cases become unknown.
    """
    patients = {study.patient for study in studies.values() if study.day is not None}
    return {
        case: studies.get(case) or (replace(study, day=None) if study.patient in patients else study)
        for case, study in index.studies.items()
    }


def _without_run_paths(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the model of an index without the paths of its runs, which may have been moved."""
    fields = {key: value for key, value in model.items() if key != "run"}
    return fields | ({"runs": [_without_run_paths(run) for run in fields["runs"]]} if "runs" in fields else {})


def make_label_defs(names: Mapping[int, str], kinds: Mapping[int, FindingKind] | None = None) -> tuple[LabelDef, ...]:
    """Returns the label definitions for class names by label value, each with its own colour and kind."""
    all_kinds = propose_kinds(names) | dict(kinds or {})
    return tuple(
        LabelDef(value, name, _to_hex(default_colour(value)), all_kinds[value]) for value, name in names.items()
    )


def _to_hex(colour: Colour) -> str:
    return f"#{bytes(colour).hex()}"


def _write_index(index: Index) -> None:
    cases = [{"id": case, "unit": index.units[case], **asdict(index.find_study(case))} for case in index.cases]
    fields = asdict(index) | {"cases": cases}
    write_json(index.folder / INDEX, {key: fields[key] for key in fields if key not in ("folder", "units", "studies")})
