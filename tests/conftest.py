"""What many tests lean on."""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from medssl.files import write_json
from medssl.inference.connected_findings import extract_findings
from medssl.io import nifti
from medssl.volume import Volume

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
# Machines are shared, so no test is held to a time, and every machine tries the same examples.
settings.register_profile("medssl", deadline=None, derandomize=True)
settings.load_profile("medssl")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
# They begin first, so that at the end no process is left with one of them while the others have nothing to do.
LONG_FILES = (
    "test_demo.py",
    "test_processes.py",
    "test_wheel.py",
    "test_onnx_models.py",
    "test_classification_sweep.py",
    "test_sweep.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the tests of the longest files to the front."""
    items.sort(key=lambda item: LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES))


@pytest.fixture(scope="session")
def shared_data():
    """A function from a data set's name to its folder; the test is skipped where the set is not on this machine."""

    def find(name: str) -> Path:
        folder = SHARED / name
        if not folder.exists():
            pytest.skip(f"needs the real data set {name!r} in {SHARED}")
        return folder

    return find


@pytest.fixture(scope="session")
def chromium():
    """A browser, started once: a second Playwright in one process is refused."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright (the `test` extra)")
    path = shutil.which("chromium")
    if not path:
        pytest.skip("needs Chromium (`apt-get install chromium`)")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def same_main():
    """Streamlit's AppTest leaves its script as `__main__`, which every spawned process would then run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def predictions(tmp_path):
    """A predictions folder as `medssl predict` writes it: three phantom cases with 2, 1 and no nodule."""
    return write_predictions(tmp_path / "predictions")


@pytest.fixture(scope="module")
def served_predictions(tmp_path_factory):
    """The same folder for a server that all tests of a module share."""
    return write_predictions(tmp_path_factory.mktemp("served") / "predictions")


def write_predictions(folder: Path) -> Path:
    nodules = {"case-a": [(10, 12, 8), (26, 20, 16)], "case-b": [(16, 16, 12)], "case-c": []}
    for case, centres in nodules.items():
        write_phantom_case(folder / case, case, centres)
    labels = [{"value": 1, "name": "nodule", "colour": "#e0a030"}, {"value": 2, "name": "cyst", "colour": "#4080e0"}]
    metadata = {"cases": [{"id": case, "unit": "HU"} for case in nodules], "labels": labels, "created": "2026-01-01"}
    model = {"run": "runs/a", "weights_sha256": "0" * 64, "version": "1"}
    write_json(folder / "index.json", metadata | {"model": model, "notice": "Research use only. Not for clinical use."})
    return folder


def write_phantom_case(folder: Path, case: str, centres: list[tuple[int, int, int]]) -> None:
    """Balls of 3 mm radius and soft tissue in lung, stored in LPS order so that nothing may rely on RAS files."""
    voxels = np.indices((36, 32, 24)).transpose(1, 2, 3, 0) * 1.0
    inside = np.any([np.linalg.norm(voxels - c, axis=-1) <= 3 for c in centres], axis=0) | np.zeros(
        voxels.shape[:3], bool
    )
    affine = np.array([[-1.0, 0, 0, 18], [0, -1, 0, 16], [0, 0, 1.5, -18], [0, 0, 0, 1]])
    noise = np.random.default_rng(0).normal(0, 20, inside.shape)
    image = Volume(np.where(inside, 40, -800 + noise).round().astype(np.int16), affine, "HU")
    labels = Volume(inside.astype(np.uint8), affine, "label")
    confidence = np.where(inside, 0.9, 0.1)
    nifti.write(image, folder / "image.nii.gz")
    nifti.write(labels, folder / "labels.nii.gz")
    nifti.write(Volume((confidence * 255).astype(np.uint8), affine, "probability"), folder / "probability.nii.gz")
    findings = extract_findings(labels, confidence, confidence / 2, case, {1: "nodule", 2: "cyst"})
    write_json(folder / "findings.json", [asdict(finding) for finding in findings])
