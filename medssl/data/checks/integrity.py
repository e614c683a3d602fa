"""Verify: reads every file of a store, a run or predictions again, and names what is not as it was written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medssl.data import store
from medssl.data import worker_pool as pool
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.files import SEALS, read_checksums, sha256
from medssl.predictions_folder import FINDINGS, IMAGE, INDEX, LABELS, PROBABILITY, read_index
from medssl.run import Run

MANIFEST = "manifest.csv"
REMEDIES = {
    "store.json": "restore it from a copy, or ingest again into another folder",
    "run.json": "restore it from a copy, or train again",
    INDEX: "restore it from a copy, or predict again into another folder",
}
Watch = Callable[[int, int], None]  # told how many files are read, of how many


@dataclass(frozen=True)
class Checked:
    """One file, what is wrong with it (nothing: an empty text), and how to have it again."""

    path: Path
    fault: str
    remedy: str


@dataclass(frozen=True)
class _Job:
    """A file and the hash it must have: that of its voxels if it is one of a store."""

    path: Path
    sha256: str
    remedy: str
    voxels: bool = False


def verify(place: Path, workers: int, watch: Watch) -> list[Checked]:
    """Every file of the store, the run or the predictions at `place`, read in processes that damage may kill."""
    try:
        sealed, torn = read_checksums(place), ""
    except BadInput as error:
        sealed, torn = {}, str(error)
    kind = next((name for name in REMEDIES if name in sealed or (place / name).is_file()), None)
    if kind is None:
        raise BadInput(
            f"{place}: neither a store nor a run nor predictions; give the folder one of them was written to"
        )
    if kind == "run.json" and not sealed and not torn and not Run.open(place).closed:
        raise BadInput(f"{place}: this run is not finished, so that nothing is sealed yet; verify it when it is")
    jobs = [_Job(place / name, told, REMEDIES[kind]) for name, told in sealed.items()]
    jobs += _voxels(place, sealed) if kind == "store.json" else []
    done = [] if sealed else [Checked(place / SEALS, torn or "is gone", REMEDIES[kind])]
    done += [Checked(path, "was never sealed", REMEDIES[kind]) for path in _unsealed(place, kind, sealed)]
    watch(0, len(jobs))
    for number, (_, checked) in enumerate(pool.run(jobs, _check, _dead, workers), 1):
        done.append(checked)
        watch(number, len(jobs))
    return sorted(done, key=lambda c: c.path)


def _voxels(place: Path, sealed: dict[str, str]) -> list[_Job]:
    """The images and labels of a store, held against its manifest, or each against itself if that is damaged."""
    manifest, again = place / MANIFEST, "remove it and run the same `medssl ingest` again"
    if not manifest.is_file() or sha256(manifest) != sealed.get(MANIFEST):
        return [_Job(path, "", again, voxels=True) for path in place.glob("*/*.b2nd")]
    cases = Manifest.read(manifest).cases
    named = [(c.image, c.sha256) for c in cases] + [(c.label, c.label_sha256) for c in cases]
    return [_Job(place / name, told, again, voxels=True) for name, told in named if name]


def _unsealed(place: Path, kind: str, sealed: dict[str, str]) -> list[Path]:
    """Files of predicted cases that stand in no seal, as a killed prediction leaves them."""
    if kind != INDEX or not sealed:
        return []
    try:
        cases = read_index(place).cases
    except (BadInput, UnicodeDecodeError):
        return []
    files = [f"{case}/{name}" for case in cases for name in (IMAGE, LABELS, PROBABILITY, FINDINGS)]
    return [place / name for name in files if name not in sealed]


def _check(job: _Job) -> Checked:
    if not job.path.is_file():
        return Checked(job.path, "is gone", job.remedy)
    if job.voxels:
        return Checked(job.path, store.fault(job.path, job.sha256), job.remedy)
    return Checked(
        job.path, "" if sha256(job.path) == job.sha256 else "holds other bytes than were written", job.remedy
    )


def _dead(job: _Job) -> Checked:
    return Checked(job.path, "is so damaged that reading it kills the process", job.remedy)
