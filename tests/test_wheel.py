"""The installed wheel works from an empty folder and installs no top-level package except `medssl`."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medssl import cli
from medssl.io import nifti
from medssl.volume import Volume
from tests.helpers import dicom_phantom
from tests.helpers.finished_runs import make_finished_run

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    process = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def run_installed(wheel, tmp_path_factory):
    """Runs `medssl ...` of the unpacked wheel, from an empty folder; libraries come from this environment."""
    site, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    zipfile.ZipFile(wheel).extractall(site)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "medssl.cli", *words]
        return subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True, timeout=550)

    return call


def test_nothing_but_medssl_is_installed(wheel):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"medssl"}


def test_scripts_app_configs_and_the_component_are_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = ("pipelines", "app", "configs")
    tracked = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert tracked and {f"medssl/bundle/{name}" for name in tracked} <= names
    frontend = {f"medssl/viewer/frontend/{p.name}" for p in (ROOT / "medssl/viewer/frontend").glob("*.[jc]s*")}
    assert frontend and frontend <= names


def install(wheel, extra, folder):
    """Returns the Python of an empty environment into which pip installs the wheel with an extra."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), f"{wheel}[{extra}]"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=550)
    if "No matching distribution found" in process.stderr:
        pytest.skip(f"no package index here: {process.stderr.splitlines()[-1]}")
    assert process.returncode == 0, process.stderr
    listing = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
    assert not {"torch", "monai", "lightning", "simpleitk"} & {
        row["name"].lower() for row in json.loads(listing.stdout)
    }
    return python


@pytest.fixture(scope="module")
def app_environment(wheel, tmp_path_factory):
    return install(wheel, "app", tmp_path_factory.mktemp("environment"))


def test_an_onnx_file_predicts_a_study_where_torch_is_not_installed(wheel, tmp_path):
    python = install(wheel, "onnx", tmp_path / "environment")
    make_finished_run(tmp_path / "run")
    assert cli.run("publish", [str(tmp_path / "run"), "--out", str(tmp_path / "published"), "--onnx"]) == 0
    dicom_phantom.save(dicom_phantom.make_slices(), tmp_path / "study")
    options = ["--out", str(tmp_path / "out"), "--dicom-out", str(tmp_path / "documents")]
    command = [python, "-m", "medssl.cli", "predict", tmp_path / "published" / "model.onnx", tmp_path / "study"]
    process = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert cli.run("predict", [str(tmp_path / "run"), str(tmp_path / "study"), "--out", str(tmp_path / "torch")]) == 0
    labels = [nifti.read(next(tmp_path.glob(f"{f}/*/labels.nii.gz")), label=True).voxels for f in ("out", "torch")]
    assert (labels[0] == labels[1]).mean() >= 0.9999
    names = {path.name for path in (tmp_path / "documents").glob("*/*")}
    assert {"seg.dcm", "sr.dcm", "report.pdf", "montage.png"} <= names


def test_the_app_installs_and_opens_without_torch(app_environment, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [app_environment, "-m", "medssl.cli", "review", "--demo", "phantoms", "--port", port]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            assert _answers(f"http://127.0.0.1:{port}/_stcore/health", server), server.stderr.read().decode()
        finally:
            server.terminate()


def test_the_app_reads_nrrd_and_names_the_extra_of_registration(app_environment, tmp_path):
    """SimpleITK, the largest package, is needed for registration alone."""
    (tmp_path / "scans").mkdir()
    voxels = np.random.default_rng(0).integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
    for name in "ab":
        image = sitk.GetImageFromArray(np.roll(voxels, ord(name)))
        sitk.WriteImage(image, str(tmp_path / "scans" / f"{name}.nrrd"), useCompression=True)
    medssl = [app_environment, "-m", "medssl.cli"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
    process = subprocess.run([*medssl, "ingest", "scans", "--out", "store", "--modality", "CT"], **options)
    assert process.returncode == 0 and "2 cases prepared" in process.stdout, process.stderr
    process = subprocess.run([*medssl, "atlas", "store/manifest.csv", "--out", "atlas"], **options)
    assert process.returncode == 2 and "pip install 'medssl[train]'" in process.stderr


def _answers(url: str, server: subprocess.Popen) -> bool:
    """Whether a server answers within two minutes, before it ends."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            if server.poll() is not None:
                return False
            time.sleep(0.5)
    return False


def test_help_and_ingest_work_from_an_empty_folder(run_installed, tmp_path):
    process = run_installed("--help")
    assert process.returncode == 0 and "ingest" in process.stdout and "pretrain" in process.stdout
    rng = np.random.default_rng(0)
    for name in "ab":
        voxels = rng.integers(-1000, 1000, (20, 20, 20)).astype(np.int16)
        nifti.write(Volume(voxels, np.eye(4), "HU"), tmp_path / "scans" / f"{name}.nii.gz")
    process = run_installed("ingest", str(tmp_path / "scans"), "--out", str(tmp_path / "store"))
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "store" / "manifest.csv").is_file()
    process = run_installed("data-card", str(tmp_path / "store"))
    assert process.returncode == 0 and "| cases | 2, 0" in (tmp_path / "store" / "CARD.md").read_text(), process.stderr


def test_a_config_of_the_package_is_found_from_anywhere(run_installed):
    process = run_installed("pretrain", "configs/pretrain/spark.yaml")
    assert process.returncode == 2 and "run: is missing" in process.stderr and "manifest: is missing" in process.stderr


def test_the_demo_of_the_package_runs_from_scans_to_a_verdict(run_installed):
    process = run_installed("demo", "--quick", "--out", "demo")
    assert process.returncode == 0, process.stderr
    for part in (
        "The demo takes about one minute",
        "organs, 4 labelled scans: mean Dice",
        "It does not cover the choice of the labelled scans",
        "nodules",
        "medssl review demo/predictions/nodules --demo",
    ):
        assert part in process.stdout
    again = run_installed("demo", "--out", "demo")
    assert again.returncode == 2 and "exists already" in again.stderr
