"""Ingestion that is killed at any moment, or loses workers, ends where an uninterrupted one does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl.data import store
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.manifest import Manifest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Forty small MRs."""
    folder = tmp_path_factory.mktemp("scans")
    for n in range(40):
        voxels = np.random.default_rng(n).uniform(0, 900, (48, 48, 48)).astype(np.float32)
        image = nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1]))
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / f"c{n:02}.nii")
    return folder


@pytest.fixture(scope="module")
def uninterrupted_cases(scans, tmp_path_factory):
    """The cases of the manifest of a run that was not killed."""
    return run(scans, tmp_path_factory.mktemp("store") / "s").cases


def run(scans, out, **options):
    return ingest(
        scans,
        out,
        IngestConfig(**({"modality": "MR", "num_workers": 0, "deidentify": False} | options)),
        lambda done, of: None,
    ).manifest


def begin(scans, out):
    words = [
        sys.executable,
        "-m",
        "medssl.cli",
        "ingest",
        str(scans),
        "--out",
        str(out),
        "--modality",
        "MR",
        "--no-deidentify",
    ]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 11, 30])
def test_kill_9_leaves_no_partial_case_and_the_next_run_continues(scans, uninterrupted_cases, tmp_path, after):
    out = tmp_path / "store"
    process = begin(scans, out)
    assert until(lambda: out.exists() and len(list(out.glob("records/*.json"))) >= after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.csv").exists()
    for path in out.glob("images/[!.]*.b2nd"):
        opened = store.read(path)
        assert store.content_sha256(opened.volume()) == opened.sha256
    assert run(scans, out).cases == Manifest.read(out / "manifest.csv").cases == uninterrupted_cases
    assert not list(out.rglob(".part-*"))


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_store(scans, uninterrupted_cases, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`")
    settings = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": None,
        "silence_logs": 50,
    }
    with distributed.LocalCluster(**settings) as cluster:
        killed = []

        def watch(done, of):
            if done == 5 and not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        options = IngestConfig(modality="MR", scheduler=cluster.scheduler_address, deidentify=False)
        assert ingest(scans, tmp_path / "store", options, watch).manifest.cases == uninterrupted_cases
        assert killed
        ingest(
            scans,
            tmp_path / "veiled",
            IngestConfig(modality="MR", scheduler=cluster.scheduler_address),
            lambda *_: None,
        )
    veiled = Manifest.read(tmp_path / "veiled/manifest.csv")
    assert sorted(c.sha256 for c in veiled.cases) == sorted(c.sha256 for c in uninterrupted_cases)
    assert all(c.id.startswith("image-") and c.source.startswith("hidden-") for c in veiled.cases)
    assert len(list((tmp_path / "veiled.private/records").iterdir())) == 40
