"""A window fitted to the CTs of a store stays fixed."""

import json

import numpy as np
import pytest

from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.manifest import Manifest
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput, InputWarning
from medssl.io import nifti
from medssl.volume import Volume

SHAPE = (20, 24, 12)


def make_chest(seed, tissue):
    """Air around a body of one tissue's HU, with some noise."""
    voxels = np.full(SHAPE, -1000, np.int16)
    voxels[4:16, 4:20] = np.random.default_rng(seed).normal(tissue, 30, (12, 16, 12)).round()
    return Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]), "HU")


@pytest.fixture
def scans(tmp_path):
    """Six CTs at 40 HU to train on, and two at 900 HU held out."""
    dataset = {"modality": {"0": "CT"}, "labels": {"0": "background"}}
    numbers_by_split = {"training": range(6), "validation": [6], "test": [7]}
    for split, numbers in numbers_by_split.items():
        for n in numbers:
            nifti.write(make_chest(n, 40 if split == "training" else 900), tmp_path / f"scans/images/c{n}.nii.gz")
        dataset[split] = [{"image": f"images/c{n}.nii.gz"} for n in numbers]
    (tmp_path / "scans/dataset.json").write_text(json.dumps(dataset))
    return tmp_path / "scans"


def ingest_scans(scans, out, **options):
    return ingest(scans, out, IngestConfig(**({"num_workers": 0} | options)), lambda finished, total: None)


def test_a_fitted_window_spans_the_body_of_the_training_scans_alone(scans, tmp_path):
    ingest_scans(scans, tmp_path / "store", window_hu="auto")
    low, high = StoreMetadata.read(tmp_path / "store").normalization.window_hu
    assert low == pytest.approx(40 - 2.58 * 30, abs=8) and high == pytest.approx(40 + 2.58 * 30, abs=8)


def test_a_window_once_fitted_stays_and_leaves_the_voxels_alone(scans, tmp_path):
    ingest_scans(scans, tmp_path / "store", window_hu="auto")
    fitted = StoreMetadata.read(tmp_path / "store")
    nifti.write(make_chest(9, 400), tmp_path / "more/c9.nii.gz")
    added = ingest_scans(tmp_path / "more", tmp_path / "store", window_hu="auto", modality="CT")
    assert StoreMetadata.read(tmp_path / "store").normalization == fitted.normalization
    assert added.prepared == 1 and ingest_scans(scans, tmp_path / "store").prepared == 0
    manifest = Manifest.read(tmp_path / "store/manifest.csv")
    hu = Store(manifest).image(next(c for c in manifest.cases if c.id == "c7")).volume().voxels[0]
    assert np.array_equal(hu, make_chest(7, 900).voxels)


def test_the_window_of_a_store_cannot_be_changed(scans, tmp_path):
    ingest_scans(scans, tmp_path / "store")
    assert StoreMetadata.read(tmp_path / "store").normalization.window_hu == (-1000, 1000)
    with pytest.raises(BadInput, match="window in HU"):
        ingest_scans(scans, tmp_path / "store", window_hu=(-160, 240))


def test_without_a_ct_the_window_stays_with_a_warning(tmp_path):
    nifti.write(make_chest(0, 40), tmp_path / "scans/a.nii.gz")
    with pytest.warns(InputWarning, match="no CT in split train"):
        ingest_scans(tmp_path / "scans", tmp_path / "store", window_hu="auto", modality="MR")


def test_a_window_cannot_be_fitted_to_channels_that_mix_ct_and_mr(tmp_path):
    for channel in (0, 1):
        nifti.write(make_chest(channel, 40), tmp_path / f"scans/imagesTr/a_000{channel}.nii.gz")
    (tmp_path / "scans/dataset.json").write_text('{"channel_names": {"0": "CT", "1": "MRI"}, "labels": {}}')
    with pytest.raises(BadInput, match="give LOW,HIGH"):
        ingest_scans(tmp_path / "scans", tmp_path / "store", window_hu="auto")
    assert not (tmp_path / "store").exists()
