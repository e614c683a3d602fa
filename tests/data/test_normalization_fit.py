"""Normalization fitted to the MRs of a store, and passed on to everything made from them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medssl import cli
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.ingest.read_source import read_source
from medssl.data.normalization import DECILES, IntensityNormalization, body_mask, compute_deciles
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.store import Store, find_damage
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.models.select_cases import select_cases
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderConfig
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.data_loaders import volume_loader
from medssl.volume import Volume

SHAPE = (24, 28, 16)
LEVELS = tuple(round(0.1 * n, 2) for n in range(1, 10))


def make_brain(seed, exponent=1.0, scale=700.0):
    """A ball of tissue in air with values changed by an exponent and a scale, as by another scanner."""
    rng = np.random.default_rng(seed)
    offset = np.indices(SHAPE).transpose(1, 2, 3, 0) - (12, 14, 8)
    inside = np.linalg.norm(offset / (11, 12, 8), axis=-1) < 1
    tissue = rng.choice([0.3, 0.55, 0.8], SHAPE, p=[0.2, 0.5, 0.3]) + rng.normal(0, 0.03, SHAPE)
    return Volume((np.where(inside, tissue.clip(0.05, 1) ** exponent, 0) * scale).astype(np.float32), np.eye(4), "a.u.")


def write_decathlon(folder, **splits):
    """Writes brains with one exponent in each split, in the layout of the Decathlon."""
    dataset = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "brain"}}
    key_of_split = {"train": "training", "val": "validation", "test": "test"}
    for split, (number, exponent) in splits.items():
        dataset[key_of_split[split]] = []
        for n in range(number):
            name = f"{split}{n}.nii.gz"
            image = make_brain(n, exponent, 300 + 500 * n)
            nifti.write(image, folder / "images" / name)
            label = (image.voxels > 0).astype(np.uint8)
            nifti.write(replace(image, voxels=label, unit="label"), folder / "labels" / name)
            dataset[key_of_split[split]].append({"image": f"images/{name}", "label": f"labels/{name}"})
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def ingest_scans(scans, out, **options):
    return ingest(scans, out, IngestConfig(**({"num_workers": 0} | options)), lambda finished, total: None).manifest


@pytest.fixture
def pool(tmp_path):
    write_decathlon(tmp_path / "pool", train=(5, 1.0), val=(2, 3.0), test=(2, 0.3))
    return ingest_scans(tmp_path / "pool", tmp_path / "store", normalization="auto")


def test_landmarks_are_fitted_to_the_training_scans_only(pool, tmp_path):
    normalization = StoreMetadata.read(pool.folder).normalization
    store = Store(pool)
    train_deciles = np.mean([store.image(case).deciles for case in pool.in_split("train").cases], axis=0)
    assert np.allclose(normalization.landmarks, train_deciles, atol=1e-3)
    write_decathlon(tmp_path / "other", train=(5, 1.0), val=(3, 0.5), test=(1, 2.0))
    other = ingest_scans(tmp_path / "other", tmp_path / "store-2", normalization="auto")
    assert StoreMetadata.read(other.folder).normalization == normalization
    assert normalization.window_hu == IntensityNormalization().window_hu


def test_one_tissue_has_one_value_in_all_scans_of_a_fitted_store(pool):
    """Landmarks bring the scans of val and test to the values of train; percentiles of each scan do not."""
    spread = {}
    for normalization in (IntensityNormalization(), StoreMetadata.read(pool.folder).normalization):
        medians = []
        for case in pool.cases:
            image = Store(pool).image(case)
            x = normalization.apply(image.volume().voxels, "a.u.", image.deciles)
            medians.append(np.median(x[0][body_mask(image.volume().voxels[0], "a.u.")]))
        spread[bool(normalization.landmarks)] = np.ptp(medians)
    assert spread[True] < 0.02 < 0.2 < spread[False]


def test_cases_are_selected_from_the_same_input(pool, tmp_path):
    network = TrainedModel.for_manifest(pool, EncoderConfig(channels=(4, 8), strides=(1, 2)), (8, 8, 8))
    assert network.normalization.landmarks
    run = Run.create(tmp_path / "run", Settings(), "pretrain", network=network.model_dump(mode="json"))
    weight_transfer.save_parts({"encoder": network.build_encoder()}, run.path / "weights.safetensors")
    run.close()
    unlabelled = replace(pool, cases=tuple(replace(case, label=None) for case in pool.cases))
    assert [selected.rank for selected in select_cases(run, unlabelled, 2)] == [1, 2]


def test_training_and_prediction_use_the_same_input(pool):
    """Crops, whole volumes and scans for prediction are normalized alike."""
    normalization = StoreMetadata.read(pool.folder).normalization
    network = TrainedModel(
        encoder={"channels": (4, 8), "strides": (1, 2)},
        in_channels=1,
        normalization=normalization,
        spacing_mm=(1.0, 1.0, 1.0),
        patch_size=(8, 8, 8),
    )
    case = pool.in_split("test").cases[0]
    prepared = network.prepare(read_source(case, pool)).voxels
    single = replace(pool, cases=(case,))
    whole = next(iter(volume_loader(single, normalization)))
    assert np.array_equal(whole.x[0, 0, 0].numpy(), prepared.reshape(SHAPE))
    item = CropDataset(single, normalization, (8, 8, 8))[0]
    i, j, k = (int(v) for v in item.corner[0])
    assert np.array_equal(item.x[0, 0].numpy(), prepared.reshape(SHAPE)[i : i + 8, j : j + 8, k : k + 8])


@settings(max_examples=25, deadline=None)
@given(st.floats(0.25, 4.0), st.floats(1e-2, 1e4))
def test_deciles_are_mapped_to_the_landmarks_whatever_the_scanner(exponent, scale):
    normalization = IntensityNormalization(landmarks=(LEVELS,))
    image = make_brain(3, exponent, scale)
    values = normalization.prepare_input(image, None).voxels[
        body_mask(normalization.prepare(image, None).voxels, "a.u.")
    ]
    assert np.percentile(values, DECILES) == pytest.approx(LEVELS, abs=0.02)
    assert values.min() >= 0 and values.max() <= 1


def test_the_order_of_values_is_kept():
    normalization = IntensityNormalization(landmarks=(tuple(v**2 for v in LEVELS),))
    image = make_brain(0)
    order = np.argsort(image.voxels, axis=None, kind="stable")
    assert (np.diff(normalization.prepare_input(image, None).voxels.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("values", [(7.0, 7.0), (0.0, 1.0)])
def test_scans_of_one_or_two_values_give_finite_input(values):
    voxels = np.resize(np.array(values, np.float32), SHAPE)
    x = IntensityNormalization(landmarks=(LEVELS,)).prepare_input(Volume(voxels, np.eye(4), "a.u."), None).voxels
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1


def test_ct_among_mixed_channels_has_no_landmarks(tmp_path):
    for n in range(3):
        ct = np.full(SHAPE, -1000, np.float32)
        ct[6:18, 6:22, 4:12] = 500 * n - 500
        nifti.write(Volume(ct, np.eye(4), "HU"), tmp_path / f"scans/imagesTr/c{n}_0000.nii.gz")
        nifti.write(make_brain(n), tmp_path / f"scans/imagesTr/c{n}_0001.nii.gz")
    (tmp_path / "scans/dataset.json").write_text('{"channel_names": {"0": "CT", "1": "MRI"}, "labels": {}}')
    manifest = ingest_scans(
        tmp_path / "scans", tmp_path / "store", normalization="auto", split_fractions={"train": 1.0}
    )
    normalization = StoreMetadata.read(tmp_path / "store").normalization
    assert normalization.hu_channels == (0,) and [len(row) for row in normalization.landmarks] == [0, 9]
    image = Store(manifest).image(manifest.cases[0])
    x = normalization.apply(image.volume().voxels, "a.u.", image.deciles)
    assert np.array_equal(x[0], image.volume().voxels[0].astype(np.float32)) and not np.array_equal(x[1], x[0])


def test_a_normalization_can_be_taken_from_another_store_or_a_run(pool, tmp_path):
    fitted = StoreMetadata.read(pool.folder).normalization
    write_decathlon(tmp_path / "few", train=(2, 2.0))
    from_store = ingest_scans(tmp_path / "few", tmp_path / "a", normalization=pool.folder)
    assert StoreMetadata.read(from_store.folder).normalization == fitted
    weights = Run.create(
        tmp_path / "run", IngestConfig(), "pretrain", network={"normalization": fitted.model_dump(mode="json")}
    )
    from_run = ingest_scans(tmp_path / "few", tmp_path / "b", normalization=weights.path)
    assert StoreMetadata.read(from_run.folder).normalization == fitted
    with pytest.raises(BadInput, match="neither a store nor a run"):
        ingest_scans(tmp_path / "few", tmp_path / "a", normalization=weights.path.parent / "c")
    ingest_scans(tmp_path / "few", tmp_path / "c")
    with pytest.raises(BadInput, match="normalization: the store has"):
        ingest_scans(tmp_path / "few", tmp_path / "c", normalization=pool.folder)
    fitted.require_same(StoreMetadata.read(tmp_path / "a").normalization)
    with pytest.raises(BadInput, match="--normalization"):
        fitted.require_same(StoreMetadata.read(tmp_path / "c").normalization)


def test_a_fitted_normalization_stays(pool, tmp_path):
    before = StoreMetadata.read(pool.folder)
    write_decathlon(tmp_path / "more", train=(2, 3.0))
    (tmp_path / "more/dataset.json").unlink()
    extended = ingest_scans(tmp_path / "more/images", pool.folder, normalization="auto", modality="MR")
    assert (
        len(extended.cases) == len(pool.cases) + 2
        and StoreMetadata.read(pool.folder).normalization == before.normalization
    )


def test_landmarks_do_not_change_stored_voxels(pool, tmp_path):
    without = ingest_scans(tmp_path / "pool", tmp_path / "plain")
    assert [c.sha256 for c in without.cases] == [c.sha256 for c in pool.cases]
    assert (
        IntensityNormalization().storage_parameters()
        == StoreMetadata.read(pool.folder).normalization.storage_parameters()
    )


def test_a_file_without_deciles_is_refused_only_with_landmarks(pool):
    image = Store(pool).image(pool.cases[0])
    voxels = image.volume().voxels
    assert np.array_equal(
        IntensityNormalization().apply(voxels, "a.u."), IntensityNormalization().apply(voxels, "a.u.", image.deciles)
    )
    with pytest.raises(BadInput, match="ingest it again"):
        StoreMetadata.read(pool.folder).normalization.apply(voxels, "a.u.", None)


def test_damaged_deciles_are_found(pool):
    import blosc2

    path = pool.path(pool.cases[0])
    assert find_damage(path, pool.cases[0].sha256) == ""
    array = blosc2.open(str(path), mode="a")
    array.schunk.vlmeta["deciles"] = [0.5] * 9
    assert "deciles" in find_damage(path, pool.cases[0].sha256)


def test_deciles_are_measured_in_the_body():
    image = replace(make_brain(1), voxels=make_brain(1).voxels.astype(np.float16))
    inside = image.voxels[body_mask(image.voxels, "a.u.")]
    assert compute_deciles(image)[0] == pytest.approx(np.percentile(inside.astype(float), DECILES), rel=2e-3)


@pytest.mark.parametrize("landmarks", [((0.1, 0.2),), (LEVELS[::-1],)])
def test_landmarks_are_nine_and_increase(landmarks):
    with pytest.raises(ValidationError, match="landmarks"):
        IntensityNormalization(landmarks=landmarks)


def test_a_window_and_a_normalization_exclude_each_other(tmp_path, capsys):
    args = [str(tmp_path), "--out", str(tmp_path / "s"), "--normalization", "auto", "--window-hu", "auto"]
    assert cli.run("ingest", args) == 2 and "give either normalization or window_hu" in capsys.readouterr().err
