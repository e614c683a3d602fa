"""The files of a case do not depend on where its voxels lie, and a disk that fills up leaves none of them behind."""

import resource
from functools import partial

import numpy as np
import pytest
import torch

from medssl import cli
from medssl.arrays import disk_arrays
from medssl.arrays.disk_arrays import is_on_disk
from medssl.data.ingest.read_source import list_scans
from medssl.data.normalization import IntensityNormalization
from medssl.files import read_checksums
from medssl.inference.ensemble import Ensemble
from medssl.inference.findings import run_store
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.case_files import predict_case
from medssl.inference.test_time_augmentation import MirrorView
from medssl.io import nifti
from medssl.volume import Volume
from tests.helpers import dicom_phantom
from tests.helpers.finished_runs import make_finished_run, write_scans

NAMES = {1: "liver", 2: "spleen"}
LANDMARKS = (tuple(np.linspace(0.1, 0.9, 9)),)


@TorchNetwork
def network(x):
    """Returns three classes of smooth structures."""
    smooth = torch.nn.functional.avg_pool3d(x[:, :1], 3, 1, 1)
    return torch.cat([-((smooth - level) ** 2) * 40 for level in (0.2, 0.5, 0.8)], 1).softmax(1)


def write_scan(folder, codes, modality):
    """Writes an image of smooth structures with fractional values for MR."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.tensordot([0.3, 0.2, 0.4], np.indices((30, 26, 41)), 1)) * 700 + rng.normal(0, 50, (30, 26, 41))
    voxels = waves.astype(np.int16) if modality == "CT" else (waves + 1000).astype(np.float32)
    folder.mkdir()
    nifti.write(Volume(voxels, np.diag([0.8, 0.9, 1.5, 1.0]), "a.u.").reorient(codes), folder / "scan.nii.gz")


def predict(folder, modality, predictor):
    (scan,) = list_scans(folder / "scans", "", modality)
    outcome = predict_case(scan, predictor.stream, folder, 2)
    assert outcome.folder is not None, outcome.text
    return {path.name: path.read_bytes() for path in outcome.folder.iterdir()}


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRP", "AIL"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_case_on_disk_has_the_same_files(tmp_path, monkeypatch, codes, modality):
    write_scan(tmp_path / "scans", codes, modality)
    normalization = IntensityNormalization(landmarks=LANDMARKS if modality == "MR" else ())
    seen = []

    def prepare(volume, spacing_mm):
        prepared = normalization.prepare_input(volume, spacing_mm)
        seen.append((is_on_disk(volume.voxels), is_on_disk(prepared.voxels)))
        return prepared

    predictor = Predictor(network, partial(prepare, spacing_mm=(1.6, 1.6, 2.0)), (8, 8, 8), NAMES)
    unchanged = Predictor(network, partial(prepare, spacing_mm=None), (8, 8, 8), NAMES, organs=frozenset({1}))
    predictors = [predictor, unchanged, Ensemble((predictor,), (MirrorView(), MirrorView((2,))))]
    expected = [predict(tmp_path, modality, each) for each in predictors]
    for module in (disk_arrays, run_store):
        monkeypatch.setattr(module, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(disk_arrays, "SLAB_BYTES", 20_000)
    found = [predict(tmp_path, modality, each) for each in predictors]
    assert seen == [(False, False)] * 3 + [(True, True)] * 3
    assert all("image.slabs" in files and "labels.nii.gz" in files for files in found)
    for a, b in zip(found, expected, strict=True):
        assert {name for name in b if a.get(name) != b[name]} == set()


def test_a_disk_that_fills_up_leaves_no_file_behind(tmp_path, capsys):
    make_finished_run(tmp_path / "a")
    write_scans(tmp_path / "scans", 2)
    args = [str(tmp_path / "a"), str(tmp_path / "scans"), "--modality", "CT", "--out", str(tmp_path / "out")]
    assert cli.run("predict", [*args[:-1], str(tmp_path / "whole")]) == 0
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole").rglob("*.nii.gz"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (sizes[0] // 2, sizes[-1] - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            assert cli.run("predict", args) == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "File too large" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".part-")]
    assert cli.run("predict", args) == 0
    whole, predicted = read_checksums(tmp_path / "whole"), read_checksums(tmp_path / "out")
    whole.pop("index.json")
    assert {name: predicted[name] for name in whole} == whole


def test_a_study_that_grows_is_predicted_as_it_was_listed(tmp_path):
    slices = dicom_phantom.make_slices(6)
    dicom_phantom.save(slices[:4], tmp_path / "scans")
    predictor = Predictor(network, partial(IntensityNormalization().prepare_input, spacing_mm=None), (8, 8, 8), NAMES)
    (scan,) = list_scans(tmp_path / "scans", "", "")
    dicom_phantom.save(slices[4:], tmp_path / "scans", suffix="-late.dcm")
    outcome = predict_case(scan, predictor.stream, tmp_path, 2)
    files = list(outcome.folder.glob("*.nii.gz"))
    assert {nifti.read_grid(path)[0] for path in files} == {(16, 12, 4)}
    assert len(files) == 3
