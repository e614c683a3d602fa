"""A fault of one case, at whatever moment, costs that case alone: here, in worker processes and on a cluster."""

import errno
import resource
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

from medssl.data.ingest.read_source import list_scans
from medssl.data.worker_pool import make_job_runner
from medssl.errors import BadInput
from medssl.files import read_checksums, sha256
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming import case_files
from medssl.inference.streaming.case_stream import PredictionBlock
from medssl.io import nifti
from medssl.predictions_folder import read_index
from medssl.volume import Volume

MODEL = {"run": "r", "weights_sha256": "x"}
CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
SHAPE, LARGE = (12, 10, 6), (64, 64, 64)
MAX_FILE_BYTES = 100_000  # less than the noise of a large scan, more than all other files
FAULTS = {
    "reading": "", "first-block": "the first block", "late-block": "the last block", "memory": "the memory",
    "findings": "the findings", "writing": "File too large",
}  # fmt: skip
GOOD = ["a-good", "other-good", "z-good"]


@dataclass(frozen=True)
class FaultySource:
    """A prediction without findings that fails at the moment that is the name of its case."""

    shape: tuple[int, int, int]
    case: str
    has_uncertainty = False
    findings = ()

    def iterate_blocks(self):
        slices = self.shape[::-1]
        for n in range(slices[0]):
            if self.case == "first-block" and n == 0:
                raise BadInput("first-block: the first block cannot be computed")
            if self.case == "late-block" and n == slices[0] - 1:
                raise OSError(errno.EIO, "the last block cannot be read")
            if self.case == "memory" and n == 2:
                raise MemoryError
            yield PredictionBlock(np.ones((1, *slices[1:]), np.uint8), np.ones((1, *slices[1:]), np.float32))
        if self.case == "findings":
            raise BadInput("findings: the findings cannot be joined")


def predict_with_faults(image, case):
    """Returns a prediction, in a process whose files have a limited size."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return FaultySource(image.shape, case)


def predict_without_faults(image, case):
    return FaultySource(image.shape, "")


@pytest.fixture
def scans(tmp_path):
    """Scans, of which one is damaged in its middle and one is large."""
    for n, case in enumerate([*GOOD, *FAULTS]):
        noise = np.random.default_rng(n).normal(0, 300, LARGE if case == "writing" else SHAPE).astype(np.int16)
        nifti.write(Volume(noise, np.eye(4), "HU"), tmp_path / "scans" / f"{case}.nii.gz")
    path = tmp_path / "scans" / "reading.nii.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield list_scans(tmp_path / "scans", "", "CT")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def require_faults_cost_one_case_each(scans, folder, caplog, run_jobs):
    cases = [scan.case for scan in scans]
    writer = PredictionWriter.create(folder / "out", {1: "t"}, MODEL, requested=cases)
    with pytest.raises(BadInput, match=f"{len(FAULTS)} of {len(cases)} cases could not be predicted"):
        writer.predict_all(scans, predict_with_faults, run_jobs=run_jobs)
    for case, words in FAULTS.items():
        assert f"{case}: left out: " in caplog.text and words in caplog.text
    index = read_index(folder / "out")
    assert sorted(index.cases) == GOOD and sorted(index.missing_cases) == sorted(FAULTS)
    assert sorted(path.name for path in (folder / "out").iterdir() if path.is_dir()) == GOOD
    checksums = read_checksums(folder / "out")
    assert {name: sha256(folder / "out" / name) for name in checksums} == checksums
    assert not list(folder.glob(".part-*"))


def test_in_this_process(scans, tmp_path, caplog):
    require_faults_cost_one_case_each(scans, tmp_path, caplog, make_job_runner(0, None))


@pytest.mark.slow
def test_in_worker_processes(scans, tmp_path, caplog):
    require_faults_cost_one_case_each(scans, tmp_path, caplog, make_job_runner(2, None))


@pytest.mark.slow
def test_on_a_cluster(scans, tmp_path, caplog):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    with warnings.catch_warnings(), distributed.LocalCluster(**CLUSTER) as cluster:
        require_faults_cost_one_case_each(scans, tmp_path, caplog, make_job_runner(0, cluster.scheduler_address))


def test_a_case_that_failed_is_predicted_on_resume(scans, tmp_path):
    healthy = [scan for scan in scans if scan.case != "reading"]
    cases = [scan.case for scan in healthy]
    with pytest.raises(BadInput, match="continue with --resume"):
        PredictionWriter.create(tmp_path / "out", {1: "t"}, MODEL, requested=cases).predict_all(
            healthy, predict_with_faults
        )
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    PredictionWriter.resume(tmp_path / "out", {1: "t"}, MODEL, requested=cases).predict_all(
        healthy, predict_without_faults
    )
    assert sorted(read_index(tmp_path / "out").cases) == sorted(cases)


def test_a_full_disk_ends_the_batch_and_leaves_no_part(scans, tmp_path, monkeypatch):
    healthy = [scan for scan in scans if scan.case in GOOD]
    write_slabs, calls = case_files.write_slabs, []

    def fill_disk(*args):
        calls.append(1)
        if len(calls) > 4:  # the second case
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_slabs(*args)

    monkeypatch.setattr(case_files, "write_slabs", fill_disk)
    writer = PredictionWriter.create(tmp_path / "out", {1: "t"}, MODEL, requested=GOOD)
    with pytest.raises(OSError, match="No space left"):
        writer.predict_all(healthy, predict_without_faults)
    index = read_index(tmp_path / "out")
    assert index.cases == ("a-good",) and not index.failed
    assert not (tmp_path / "out" / "other-good").exists() and not list(tmp_path.glob(".part-*"))
