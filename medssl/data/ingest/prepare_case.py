"""Prepares one case: read, checked, brought to the store's form and written, or refused with the reason."""

import errno
import hashlib
import json
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medssl import __version__
from medssl.data import store
from medssl.data.ingest.deidentification import Open
from medssl.data.ingest.file_ledger import Row
from medssl.data.ingest.read_source import read_image, read_label
from medssl.data.ingest.source import Source
from medssl.data.manifest import Case
from medssl.data.normalization import Recipe
from medssl.errors import BadInput, Doubt
from medssl.files import write_json
from medssl.io import dates
from medssl.io.dicom.deidentify import Key, header
from medssl.volume import Spacing, Volume


@dataclass(frozen=True)
class Job:
    """One case to prepare, and how; `where` it was read from and its DICOM header are told as the `veil` allows."""

    source: Source
    out: Path
    recipe: Recipe
    spacing_mm: Spacing | None
    where: str
    veil: Open

    def key(self) -> str:
        """Changes with the files, with the options and with the program: another key means work to do."""
        files = [(str(f), *_state(f)) for f in self.source.files]
        how = (__version__, self.recipe.stored(), self.spacing_mm, asdict(self.source), self.where)
        return hashlib.sha256(json.dumps([files, how], default=str).encode()).hexdigest()

    @property
    def record(self) -> Path:
        """Where it is written down that this case is done."""
        return self.veil.records / f"{self.source.id}.json"


@dataclass(frozen=True)
class Outcome:
    """The case, or None where it was refused, and what became of its files."""

    case: Case | None
    rows: tuple[Row, ...]


def work(job: Job) -> Outcome:
    """Prepares a case; its record is written last, so that a case without one counts as not begun."""
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            case = _stored(job)
        doubts = "; ".join(dict.fromkeys(str(w.message) for w in heard if issubclass(w.category, Doubt)))
        case = replace(case, doubts=doubts)
        done = Outcome(case, tuple(Row(str(f), "used", case.id, "", doubts) for f in job.source.files))
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        done = _refusal(job, _said(error))
    write_json(job.record, {"key": job.key(), "outcome": asdict(done)})
    return done


def dead(job: Job) -> Outcome:
    """The outcome of a case that killed its process."""
    done = _refusal(job, "reading it killed the process: a broken codec, or more memory than there is")
    write_json(job.record, {"key": job.key(), "outcome": asdict(done)})
    return done


def recorded(job: Job) -> Outcome | None:
    """What an earlier run made of the same files in the same way, if its result still stands."""
    try:
        told = json.loads(job.record.read_text())
        done = _outcome(told["outcome"])
        kept = done.case is None or all((job.out / p).is_file() for p in (done.case.image, done.case.label) if p)
        return done if kept and told["key"] == job.key() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _outcome(told: dict[str, Any]) -> Outcome:
    values: Any = told["case"] and {n: tuple(v) if isinstance(v, list) else v for n, v in told["case"].items()}
    return Outcome(Case(**values) if values else None, tuple(Row(**row) for row in told["rows"]))


def _stored(job: Job) -> Case:
    source = job.source
    image, modality = read_image(source)
    prepared = _channels(job.recipe.prepare(image, job.spacing_mm))
    image_name, label_name = (f"{kind}/{source.id}.b2nd" for kind in ("images", "labels"))
    label = None if source.label is None else _label(read_label(source, image), prepared)
    origin = {"shape": list(image.shape), "affine": image.affine.tolist(), "source": job.where}
    if source.series is not None and job.veil.key_file is not None:
        origin["header"] = header(source.images[0], Key.read(job.veil.key_file))
    label_sha = "" if label is None else store.write(job.out / label_name, label, origin)
    sha = store.write(job.out / image_name, prepared, origin)
    return Case(
        source.id, source.patient, image_name, None if label is None else label_name, modality, image.unit,
        prepared.spacing_mm(), prepared.shape, prepared.voxels.shape[0], source.split, job.where, sha,
        site=source.site, age_years=source.age_years, sex=source.sex, label_sha256=label_sha, day=_day(job),
    )  # fmt: skip


def _day(job: Job) -> int | None:
    """The day of the study: behind a veil counted from a secret day of the patient's, else as the calendar does."""
    if job.veil.key_file is not None:
        return Key.read(job.veil.key_file).counted(job.source.patient, job.source.date)
    return dates.number(job.source.date)


def _refusal(job: Job, reason: str) -> Outcome:
    return Outcome(None, tuple(Row(str(f), "refused", "", reason) for f in job.source.files))


def _label(label: Volume, prepared: Volume) -> Volume:
    """The label on the prepared image's grid, in the smallest type that holds its classes."""
    kind = np.uint8 if label.voxels.max() < 256 else np.int16
    placed = label.resample_to(prepared, order=0)
    return replace(placed, voxels=placed.voxels.astype(kind))


def _channels(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels.reshape(-1, *volume.shape))


def _state(path: Path) -> tuple[int, int]:
    """Size and time of a file, or of the archive it is a member of."""
    real = next(p for p in (path, *path.parents) if p.exists())
    return real.stat().st_size, real.stat().st_mtime_ns


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, BadInput) else f"cannot be read: {type(error).__name__}: {text}"
