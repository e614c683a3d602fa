"""The installed wheel works from an empty folder and installs no top-level package except `medssl`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medssl.io import nifti
from medssl.volume import Volume

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
        "mean Dice, 4 labelled scans:",
        "at 1 false positive per scan",
        "medssl review demo/predictions/pretrained",
    ):
        assert part in process.stdout
    again = run_installed("demo", "--out", "demo")
    assert again.returncode == 2 and "exists already" in again.stderr
