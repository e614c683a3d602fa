"""A CT goes in over the network, and SEG and SR are found in its study in a real archive, in spite of kills."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import requests
from pydicom import dcmread

from medssl.io.dicom.series_writer import SeriesInfo, write_series
from medssl.io.dicomweb.address import parse_address
from medssl.io.dicomweb.retrieve import find_series
from medssl.io.dicomweb.service import connect
from medssl.io.dicomweb.store import store_files
from medssl.volume import Volume
from tests.helpers.archive_server import free_port, run_orthanc, write_netrc
from tests.helpers.finished_runs import make_finished_run

pytestmark = pytest.mark.slow


@pytest.fixture
def archive(tmp_path, monkeypatch):
    write_netrc(tmp_path / "netrc", monkeypatch)
    with run_orthanc(tmp_path / "db") as url:
        yield url


@pytest.fixture
def run(tmp_path):
    return make_finished_run(tmp_path / "run").path


def write_ct(folder, patient, seed):
    noise = np.random.default_rng(seed).normal(0, 300, (20, 18, 16)).clip(-1000, 1000).astype(np.int16)
    write_series(Volume(noise, np.diag([1.0, 1.0, 1.5, 1.0]), "HU").reorient("LPS"), folder, SeriesInfo(patient))
    return sorted(folder.rglob("*.dcm"))


def list_modalities(url, patient):
    address = parse_address(f"{url}?PatientID={patient}")
    series = find_series(connect(address.url), address)
    assert len({item.study for item in series}) == 1
    return sorted(item.modality for item in series)


def start_watch(tmp_path, *options):
    words = [
        sys.executable,
        "-m",
        "medssl.cli",
        "watch",
        *options,
        "--run",
        tmp_path / "run",
        "--out",
        tmp_path / "out",
    ]
    return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)


def stop(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def read_statuses(tmp_path):
    return [json.loads(path.read_text())["status"] for path in tmp_path.glob("out/studies/*/state.json")]


def wait_until(condition, process, timeout_s=240.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def test_a_study_that_is_sent_comes_back_as_seg_and_sr(archive, run, tmp_path):
    """dcmtk sends; the watch receives, is killed at three random moments, and stores the documents once."""
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("needs storescu (Debian: dcmtk)")
    files, port, chance = write_ct(tmp_path / "scans", "p1", 0), free_port(), random.Random(0)
    store_files(connect(archive), files)
    options = (f"dimse://WATCH@:{port}", "--stow", f"dicomweb+{archive}", "--quiet-s", "1", "--modality", "CT")
    process = start_watch(tmp_path, *options)
    health = process.stdout.readline().rpartition(" ")[2].strip()
    command = [program, "-aec", "WATCH", "127.0.0.1", str(port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    moments = [
        lambda: any(tmp_path.glob("out/studies/*/*/predictions")),
        lambda: any(tmp_path.glob("out/studies/*/*/documents")),
        lambda: any(status in ("predicted", "done") for status in read_statuses(tmp_path)),
    ]
    for moment in moments:
        wait_until(moment, process)
        time.sleep(chance.random() / 10)
        stop(process)
        process = start_watch(tmp_path, *options)
        health = process.stdout.readline().rpartition(" ")[2].strip()
    try:
        wait_until(lambda: read_statuses(tmp_path) == ["done"], process)
        time.sleep(1)
        assert requests.get(health, timeout=10).json()["problem"] == ""
    finally:
        stop(process)
    assert list_modalities(archive, "p1") == ["CT", "SEG", "SR"]
    (seg,) = tmp_path.rglob("seg.dcm")
    assert dcmread(seg).StudyInstanceUID == dcmread(files[0]).StudyInstanceUID
    assert not [path for path in tmp_path.glob("out/inbox/*") if path.name.startswith(".part-")]


def test_an_archive_is_searched_for_new_studies(archive, run, tmp_path):
    store_files(connect(archive), write_ct(tmp_path / "scans", "p2", 1))
    address = f"dicomweb+{archive}?ModalitiesInStudy=CT"
    process = start_watch(tmp_path, address, "--stow", f"dicomweb+{archive}", "--quiet-s", "0", "--once")
    with process.stdout:
        assert process.wait(400) == 0
    assert list_modalities(archive, "p2") == ["CT", "SEG", "SR"]
