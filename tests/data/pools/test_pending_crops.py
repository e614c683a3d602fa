"""Crops are the same whether a loader augments them or leaves that to the device that trains."""

from dataclasses import fields
from unittest import mock

import pytest
import torch

from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.case_pool import CasePool, PooledCrops
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.pending_crops import PendingCrops, augment_crops
from medssl.data.transforms import spatial
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import train_loader
from tests.helpers.toy_training import write_store

SIZE = (12, 14, 10)
AUGMENT = AugmentConfig(probability=0.7, flip=(True, True, True), left_right_pairs=((0, 1),))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return Manifest.read(write_store(tmp_path_factory.mktemp("data") / "store", 4, channels=2))


def make_dataset(manifest, **options):
    options = {"augment_config": AUGMENT, "seed": 3, **options}
    return CropDataset(manifest, IntensityNormalization(), SIZE, **options)


def load(dataset, augment_on, extra=None, num_workers=0):
    config = TrainConfig(
        batch_size=2, epochs=1, steps_per_epoch=6, augment_on=augment_on, num_workers=num_workers, accelerator="cpu"
    )
    return list(train_loader(dataset, config, extra))


def require_equal(batches, pending):
    """Raises unless batches are equal bit for bit to those that are augmented now."""
    assert all(isinstance(batch, PendingCrops) for batch in pending)
    for expected, batch in zip(batches, map(augment_crops, pending), strict=True):
        for field in fields(expected):
            value, other = getattr(expected, field.name), getattr(batch, field.name)
            assert value is other is None or (value.dtype == other.dtype and torch.equal(value, other)), field.name


@pytest.mark.parametrize("options", [{}, {"labelled": True}, {"num_views": 2}, {"augment_config": None}])
def test_both_places_give_the_same_crops(manifest, options):
    dataset = make_dataset(manifest, **options)
    batches = load(dataset, "loader")
    require_equal(batches, load(dataset, "device"))
    assert not options.get("labelled") or batches[0].label.dtype == torch.int64


def test_both_places_keep_the_same_channel_of_a_pool(manifest):
    dataset = PooledCrops(CasePool((manifest,)), lambda cases: make_dataset(cases), 2.0, single_channel=True)
    batches = load(dataset, "loader")
    require_equal(batches, load(dataset, "device"))
    assert batches[0].x.shape[2] == 1


def test_unlabelled_crops_get_the_same_ignored_labels(manifest):
    labelled, extra = make_dataset(manifest, labelled=True), make_dataset(manifest)
    batches = load(labelled, "loader", extra)
    require_equal(batches, load(labelled, "device", extra))
    assert all((batch.label[1::2] == -1).all() and (batch.label[::2] >= 0).all() for batch in batches)


@pytest.mark.slow
def test_a_loader_process_hands_out_the_same_crops(manifest):
    dataset = make_dataset(manifest, labelled=True)
    require_equal(load(dataset, "loader"), load(dataset, "device", num_workers=1))


def test_no_change_reads_a_value_back_from_the_device(manifest):
    """Tensors on the device `meta` have no values: to read one fails, as does a mixture of devices."""
    dataset = make_dataset(manifest, labelled=True, augment_config=AUGMENT.model_copy(update={"probability": 1.0}))
    batch = load(dataset, "device")[0]
    crops = batch.to("meta").augment()
    assert {value.device.type for value in vars(crops).values() if value is not None} == {"meta"}
    assert crops.x.shape == batch.augment().x.shape == (2, 1, 2, *SIZE)


def test_crops_that_are_resampled_at_once_are_those_resampled_by_slabs(manifest):
    dataset = make_dataset(manifest, labelled=True)
    batches = load(dataset, "loader")
    with mock.patch.object(spatial, "SLAB", 1000):
        for expected, batch in zip(batches, load(dataset, "loader"), strict=True):
            assert torch.allclose(expected.x, batch.x, atol=1e-5) and torch.equal(expected.label, batch.label)
