"""Integrity check: reads every file of a store, a run or predictions again and finds the files that changed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.data.worker_pool import make_job_runner
from medssl.errors import BadInput
from medssl.files import CHECKSUMS, read_checksums, sha256
from medssl.predictions_folder import FINDINGS, IMAGE, INDEX, LABELS, PROBABILITY, read_index
from medssl.run import Run

MANIFEST = "manifest.csv"
REMEDIES = {
    "store.json": "restore it from a copy, or ingest again into another folder",
    "run.json": "restore it from a copy, or train again",
    INDEX: "restore it from a copy, or predict again into another folder",
}
VOXELS_REMEDY = "remove it and run the same `medssl ingest` again"
ProgressCallback = Callable[[int, int], None]  # called with the number of checked files and of all files


@dataclass(frozen=True)
class FileCheck:
    """The result for one file.

    Attributes:
        path: The file.
        fault: What is wrong with it; empty if nothing is.
        remedy: How to restore it.
    """

    path: Path
    fault: str
    remedy: str


@dataclass(frozen=True)
class _Job:
    """A file and the hash it must have: of its voxels if it is a volume of a store, else of its bytes."""

    path: Path
    sha256: str
    remedy: str
    has_voxels: bool = False


def verify(folder: Path, num_workers: int, on_progress: ProgressCallback) -> list[FileCheck]:
    """Checks every file of a store, a run or predictions.

    Args:
        folder: The folder of the store, the finished run or the predictions.
        num_workers: Number of processes, which damaged files may kill; with 0 this process reads the files.
        on_progress: Called with the number of checked files and of all files.

    Returns:
        One result per file, ordered by path.

    Raises:
        BadInput: The folder is of another kind, or an unfinished run, or the number of processes is negative.
    """
    run_jobs = make_job_runner(num_workers, None)
    try:
        checksums, checksums_fault = read_checksums(folder), ""
    except BadInput as error:
        checksums, checksums_fault = {}, str(error)
    kind = next((name for name in REMEDIES if name in checksums or (folder / name).is_file()), None)
    if kind is None:
        raise BadInput(f"{folder}: neither a store nor a run nor predictions; give the folder of one of them")
    if kind == "run.json" and not checksums and not checksums_fault and not Run.open(folder).is_closed:
        raise BadInput(f"{folder}: this run is not finished and has no checksums yet; verify it when it is finished")
    jobs = [_Job(folder / name, digest, REMEDIES[kind]) for name, digest in checksums.items()]
    jobs += _list_voxel_jobs(folder, checksums) if kind == "store.json" else []
    missing = FileCheck(folder / CHECKSUMS, checksums_fault or "is gone", REMEDIES[kind])
    checks = [] if checksums else [missing]
    checks += [FileCheck(path, "was never sealed", REMEDIES[kind]) for path in _find_unsealed(folder, kind, checksums)]
    on_progress(0, len(jobs))
    for number, (_, check) in enumerate(run_jobs(jobs, _check_file, _report_death), 1):
        checks.append(check)
        on_progress(number, len(jobs))
    return sorted(checks, key=lambda check: check.path)


def _list_voxel_jobs(folder: Path, checksums: dict[str, str]) -> list[_Job]:
    """Lists the volumes of a store with the hashes of its manifest, or without hashes if the manifest is damaged."""
    manifest = folder / MANIFEST
    if not manifest.is_file() or sha256(manifest) != checksums.get(MANIFEST):
        return [_Job(path, "", VOXELS_REMEDY, has_voxels=True) for path in folder.glob("*/*.b2nd")]
    cases = Manifest.read(manifest).cases
    volumes = [(c.image, c.sha256) for c in cases] + [(c.label, c.label_sha256) for c in cases]
    return [_Job(folder / name, digest, VOXELS_REMEDY, has_voxels=True) for name, digest in volumes if name]


def _find_unsealed(folder: Path, kind: str, checksums: dict[str, str]) -> list[Path]:
    """Finds files of predicted cases without a checksum, as a killed prediction leaves them."""
    if kind != INDEX or not checksums:
        return []
    try:
        cases = read_index(folder).cases
    except (BadInput, UnicodeDecodeError):
        return []
    files = [f"{case}/{name}" for case in cases for name in (IMAGE, LABELS, PROBABILITY, FINDINGS)]
    return [folder / name for name in files if name not in checksums]


def _check_file(job: _Job) -> FileCheck:
    if not job.path.is_file():
        return FileCheck(job.path, "is gone", job.remedy)
    if job.has_voxels:
        return FileCheck(job.path, store.find_damage(job.path, job.sha256), job.remedy)
    fault = "" if sha256(job.path) == job.sha256 else "holds other bytes than were written"
    return FileCheck(job.path, fault, job.remedy)


def _report_death(job: _Job) -> FileCheck:
    return FileCheck(job.path, "is so damaged that reading it kills the process", job.remedy)
