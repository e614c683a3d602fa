"""One pretraining draws from several stores: of different sites, sizes, channels and modalities."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medssl import config
from medssl.data import store
from medssl.data.checks import leakage
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.case_pool import CasePool, PooledCrops
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel
from medssl.run import Run
from medssl.training.pretrain import PretrainConfig, make_loaders, pretrain
from medssl.training.semi_supervised.label_source import LabelPool
from medssl.volume import Volume
from tests.helpers.toy_training import make_spark, write_store


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Returns the manifests of a small store of MRs with two channels and of a larger one with one channel."""
    folder = tmp_path_factory.mktemp("pool")
    return write_store(folder / "two", cases=3, channels=2), write_store(folder / "one", cases=9)


def make_config(folder, stores, **changes) -> PretrainConfig:
    values = {
        "run": str(folder / "run"), "manifest": str(stores[0]), "pool": [str(path) for path in stores[1:]],
        "objective": "mae", "patch_size": [16, 16, 16], "encoder": {"channels": [4, 8], "strides": [1, 2]},
        "train": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2}, **changes,
    }  # fmt: skip
    return config.check(values, PretrainConfig, "test")


def make_crops(stores, **options) -> PooledCrops:
    pool = CasePool.read(Manifest.read(stores[0]).in_split("train"), stores[1:], "train")

    def make_dataset(manifest):
        return CropDataset(manifest, IntensityNormalization(), (16, 16, 16))

    return PooledCrops(pool, make_dataset, **options)


def test_volumes_of_different_channels_train_one_network(tmp_path, stores):
    run = pretrain(make_config(tmp_path, stores, single_channel=True, sampling_temperature=2))
    model = TrainedModel.from_run(run)
    assert model.in_channels == 1 and len(leakage.read_traces(run.path)) == 2 + 8
    assert len(run.metadata["pool"]) == 1 and run.metadata["pool"][0]["manifest"] != run.metadata["manifest"]
    assert Run.open(run.path).is_closed


def test_different_channels_are_refused_with_the_remedy(tmp_path, stores):
    with pytest.raises(BadInput, match=r"one has volumes with 1 channels, .*two with 2; .*single_channel=true"):
        pretrain(make_config(tmp_path, stores))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.2), (1e9, 0.5)])
def test_the_temperature_decides_how_often_a_small_store_is_drawn(stores, temperature, share):
    """The pool has 2 and 8 volumes."""
    crops = make_crops(stores, temperature=temperature, single_channel=True)
    assert len(crops) == 10
    counts = Counter(
        int(crops.groups[0].numbers[0] <= crops[n].volume <= crops.groups[0].numbers[-1]) for n in range(300)
    )
    assert counts[1] / 300 == pytest.approx(share, abs=0.08)
    assert {crops[n].volume for n in range(300)} == set(range(10))


def test_sites_of_one_store_are_groups(stores):
    manifest = Manifest.read(stores[1]).in_split("train")
    sites = replace(manifest, cases=tuple(replace(c, site="ab"[n > 0]) for n, c in enumerate(manifest.cases)))
    groups = CasePool((sites,)).list_groups()
    assert [(len(g.numbers), {c.site for c in g.manifest.cases}) for g in groups] == [(1, {"a"}), (7, {"b"})]


def test_an_item_is_one_channel_of_its_volume_and_repeats(stores):
    crops = make_crops(stores, single_channel=True)
    whole = make_crops(stores)
    seen = set()
    for number in range(40):
        item, again = crops[number], crops[number]
        assert item.x.shape == (1, 1, 16, 16, 16) and torch.equal(item.x, again.x)
        channels = whole[number].x[0]
        matches = [c for c in range(len(channels)) if torch.equal(channels[c], item.x[0, 0])]
        assert matches
        seen |= {(len(channels), c) for c in matches}
    assert seen == {(1, 0), (2, 0), (2, 1)}


def test_ct_and_mr_of_different_spacing_are_one_pool(tmp_path, stores):
    folder = tmp_path / "ct"
    manifest = write_store(folder, cases=3)
    read = Manifest.read(manifest)
    cases = []
    for case in read.cases:
        hu = np.random.default_rng(0).integers(-1000, 1000, (1, 20, 20, 20)).astype(np.int16)
        (folder / case.image).unlink()
        store.write(folder / case.image, Volume(hu, np.diag([2.0, 2.0, 2.0, 1.0]), "HU"), {})
        cases.append(replace(case, unit="HU", modality="CT", spacing_mm=(2.0, 2.0, 2.0)))
    Manifest(tuple(cases), folder).write(manifest)
    run = pretrain(make_config(tmp_path, (stores[1], manifest)))
    model = TrainedModel.from_run(run)
    assert set(model.units) == {"HU", "a.u."} and model.spacing_mm is None


def test_another_normalization_is_refused_with_the_remedy(tmp_path, stores):
    other = write_store(tmp_path / "other", cases=2)
    metadata = StoreMetadata.read(Path(other).parent)
    narrow = IntensityNormalization(window_hu=(-100, 100))
    metadata.model_copy(update={"normalization": narrow}).write(Path(other).parent)
    with pytest.raises(BadInput, match=r"other has another intensity normalization than .*one; .*--normalization"):
        pretrain(make_config(tmp_path, (stores[1], other)))


@pytest.mark.parametrize("changes", [{}, {"single_channel": True}, {"sampling_temperature": 2.0, "pool": []}])
def test_a_pool_with_labels_is_refused(tmp_path, stores, changes):
    with pytest.raises(BadInput, match="take no labels; leave out labels"):
        make_config(tmp_path, stores, labels="labelled", **changes)


def test_batches_spread_over_the_groups_of_a_table(tmp_path, stores):
    manifest = Manifest.read(stores[1]).in_split("train")
    table = tmp_path / "clusters.csv"
    cluster_of = {case.id: f"cluster-{n % 4}" for n, case in enumerate(manifest.cases)}
    table.write_text("\n".join(["case,cluster", *(f"{case},{cluster}" for case, cluster in cluster_of.items())]))
    settings = make_config(tmp_path, stores[1:], spread_by=f"{table}:cluster", train={"batch_size": 4})
    loaders = make_loaders(settings, make_spark(), LabelPool(manifest, None, IntensityNormalization()))
    dataset, clusters = loaders.dataset, list(cluster_of.values())
    assert len(dataset) == 8
    for batch in range(10):
        volumes = [dataset.draw_item(number).volume for number in range(4 * batch, 4 * batch + 4)]
        assert len({clusters[volume] for volume in volumes}) == 4
    trained = make_config(tmp_path, stores[1:], spread_by=f"{table}:cluster")
    assert pretrain(trained).is_closed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spread_by": "clusters.csv"}, "clusters.csv: cases are grouped by site, sex"),
        ({"spread_by": "none.csv:cluster"}, "none.csv: no such file"),
        ({"spread_by": "site", "sampling_temperature": 2}, "spread_by: orders the volumes of one store without labels"),
    ],
)
def test_groups_that_batches_cannot_be_spread_over_are_refused(tmp_path, stores, changes, message):
    with pytest.raises(BadInput, match=message):
        pretrain(make_config(tmp_path, stores[1:], **changes))
    assert not (tmp_path / "run").exists()
