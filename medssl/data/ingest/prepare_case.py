"""Prepares one case for a store: reads and checks it, normalizes and writes it, or refuses it with a reason."""

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, is_dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medssl.data import store
from medssl.data.ingest.deidentification import private_note
from medssl.data.ingest.file_ledger import LedgerRow
from medssl.data.ingest.read_source import read_image
from medssl.data.ingest.source import Source, source_from_json, source_to_json
from medssl.data.ingest.structures.read_label import read_label
from medssl.data.manifest import Case
from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput, InputWarning, Message, join_messages, restore_message
from medssl.files import is_disk_full, write_json
from medssl.io import dates
from medssl.io.dicom.deidentify import PseudonymKey, read_allowed_header
from medssl.io.dicom.header_memory.memory import HeaderMemory
from medssl.version import __version__
from medssl.volume import Spacing, Volume


@dataclass(frozen=True)
class PrepareJob:
    """One case to prepare.

    Attributes:
        source: The case, under the names that the store may show.
        out: The folder of the store.
        normalization: Prepares the voxels.
        spacing_mm: Spacing of the stored voxels in mm along the axes R, A and S; None for that of the scan.
        records: The folder with a record of each case that is done.
        key_file: The key that hides dates and names; None if the store is not de-identified.
        headers: What is known of the files of a DICOM series, which are not parsed again.
    """

    source: Source
    out: Path
    normalization: IntensityNormalization
    spacing_mm: Spacing | None
    records: Path
    key_file: Path | None = None
    headers: HeaderMemory | None = None

    def digest(self) -> str:
        """Returns a hash of the files, the options and the version; a case is prepared again when it changes."""
        files = [(str(f), *_size_and_mtime(f)) for f in self.source.files]
        options = (__version__, self.normalization.storage_parameters(), self.spacing_mm, self.source)
        return hashlib.sha256(json.dumps([files, options], default=_to_plain).encode()).hexdigest()

    @property
    def record(self) -> Path:
        """The file with the result of the job."""
        return self.records / f"{self.source.id}.json"

    def redact(self, message: Message) -> str:
        """Returns the message as the store may show it."""
        return str(message if self.key_file is None else message.redact(private_note(self.out)))


@dataclass(frozen=True)
class PrepareResult:
    """The prepared case, or None if it was refused, and a ledger row for each of its files."""

    case: Case | None
    rows: tuple[LedgerRow, ...]


def prepare_case(job: PrepareJob) -> PrepareResult:
    """Prepares a case and writes its record last, so that a case without a record counts as not prepared.

    Raises:
        OSError: The disk is full. All other errors refuse the case.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            case = _store_case(job)
        messages = [w.message.args[0] for w in caught if isinstance(w.message, InputWarning)]
        message = join_messages([*job.source.warnings, *messages])
        case = replace(case, warnings=job.redact(message))
        result = PrepareResult(case, _make_rows(job, "used", case.id, warnings=message))
    except Exception as error:
        if is_disk_full(error):
            raise
        result = PrepareResult(None, _make_rows(job, "refused", reason=_failure_message(error)))
    _write_record(job, result)
    return result


def record_killed_process(job: PrepareJob) -> PrepareResult:
    """Records and returns the result of a case that killed its process."""
    message = Message("reading it killed the process: the codec crashed or the memory was exhausted")
    result = PrepareResult(None, _make_rows(job, "refused", reason=message))
    _write_record(job, result)
    return result


def load_previous_result(job: PrepareJob) -> PrepareResult | None:
    """Returns the recorded result of the same job, or None if there is none or its files are gone."""
    try:
        record = json.loads(job.record.read_text())
        result = _parse_result(record["outcome"])
        files = (result.case.image, result.case.label) if result.case else ()
        is_complete = all((job.out / file).is_file() for file in files if file)
        return result if is_complete and record["key"] == job.digest() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_recorded_source(records: Path, case: str) -> Source | None:
    """Returns the files that a case of a store was prepared from; None if there is no such record."""
    try:
        return source_from_json(json.loads((records / f"{case}.json").read_text())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_record(job: PrepareJob, result: PrepareResult) -> None:
    record = {"key": job.digest(), "outcome": asdict(result), "source": source_to_json(job.source)}
    write_json(job.record, record)


def _parse_result(record: dict[str, Any]) -> PrepareResult:
    fields: Any = record["case"] and {n: tuple(v) if isinstance(v, list) else v for n, v in record["case"].items()}
    return PrepareResult(Case(**fields) if fields else None, tuple(LedgerRow(**row) for row in record["rows"]))


def _make_rows(
    job: PrepareJob,
    status: Literal["used", "refused"],
    case: str = "",
    reason: Message = Message(""),  # noqa: B008
    warnings: Message = Message(""),  # noqa: B008
) -> tuple[LedgerRow, ...]:
    """Returns the ledger rows of all files of a case."""
    public_reason, public_warnings = job.redact(reason), job.redact(warnings)
    return tuple(
        LedgerRow(str(file), status, case, str(reason), str(warnings), public_reason, public_warnings)
        for file in job.source.files
    )


def _store_case(job: PrepareJob) -> Case:
    """Writes the image and the label of a case to the store and returns its row of the manifest."""
    source = job.source
    image, modality = read_image(source, job.headers)
    prepared = _add_channel_axis(job.normalization.prepare(image, job.spacing_mm))
    image_name, label_name = (f"{kind}/{source.id}.b2nd" for kind in ("images", "labels"))
    label = _resample_label(read_label(source, image), prepared) if source.has_label else None
    provenance = {"shape": list(image.shape), "affine": image.affine.tolist(), "source": source.location}
    unit = image.unit
    del image  # its memory is needed to compress what was prepared
    if source.series is not None and job.key_file is not None:
        provenance["header"] = read_allowed_header(source.images[0], PseudonymKey.read(job.key_file))
    label_sha256 = "" if label is None else store.write(job.out / label_name, label, provenance)
    sha256 = store.write(job.out / image_name, prepared, provenance)
    return Case(
        source.id, source.patient, image_name, None if label is None else label_name, modality, unit,
        prepared.spacing_mm(), prepared.shape, prepared.voxels.shape[0], source.split, source.location, sha256,
        site=source.site, age_years=source.age_years, sex=source.sex, label_sha256=label_sha256,
        study_day=_study_day(job),
    )  # fmt: skip


def _study_day(job: PrepareJob) -> int | None:
    """Returns the day of the study: in a de-identified store counted from a secret day of the patient."""
    if job.key_file is not None:
        return PseudonymKey.read(job.key_file).count_relative_days(job.source.patient, job.source.date)
    return dates.to_ordinal(job.source.date)


def _resample_label(label: Volume, image: Volume) -> Volume:
    """Returns the label on the grid of the prepared image, in the smallest type that holds its classes."""
    dtype = np.uint8 if label.voxels.max() < 256 else np.int16
    resampled = label.resample_to(image, order=0)
    return replace(resampled, voxels=resampled.voxels.astype(dtype))


def _add_channel_axis(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels.reshape(-1, *volume.shape))


def _size_and_mtime(path: Path) -> tuple[int, int]:
    """Returns the size and the modification time of a file, or of the archive that contains it."""
    for place in chain((path,), path.parents):
        try:
            state = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return state.st_size, state.st_mtime_ns
    raise FileNotFoundError(path)


def _to_plain(value: object) -> object:
    """Returns the fields of a dataclass, or the text of a path, for JSON; `asdict` copies every value."""
    return vars(value) if is_dataclass(value) else str(value)


def _failure_message(error: Exception) -> Message:
    text = " ".join(str(error).split())
    if isinstance(error, BadInput):
        return restore_message(text, error.message.public)
    return Message("cannot be read: {error}: {text}", error=type(error).__name__, text=text)
