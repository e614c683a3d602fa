"""Crops are pure functions of seed and number, on the body and on every class, with their true position."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medssl.data import store
from medssl.data.crops import collate
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.errors import BadInput
from medssl.training.data_loaders import ResumableSampler
from medssl.volume import Volume

SHAPES = [(48, 40, 36), (30, 52, 20), (64, 64, 40)]
SIZE = (24, 24, 24)


def make_case(n, labelled=True, channels=1):
    return Case(
        f"c{n}", f"p{n}", f"c{n}.b2nd", f"l{n}.b2nd" if labelled else None, "CT", "HU", (1, 1, 2), SHAPES[n], channels,
        "train", "", "",
    )  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Three CTs with HU = i on a body, and labels 1 (large) and 2 (one voxel)."""
    folder = tmp_path_factory.mktemp("store")
    for n, shape in enumerate(SHAPES):
        voxels = np.full((1, *shape), -1000, np.int16)
        voxels[0, 4:-4, 4:-4] = np.arange(4, shape[0] - 4, dtype=np.int16)[:, None, None]
        label = np.zeros(shape, np.uint8)
        label[6:14, 6:30, 4:16], label[20, 20, 10] = 1, 2
        affine = np.diag([1.0, 1, 2, 1])
        affine[:3, 3] = n
        store.write(folder / f"c{n}.b2nd", Volume(voxels, affine, "HU"), {})
        store.write(folder / f"l{n}.b2nd", Volume(label, affine, "label"), {})
    return Manifest(tuple(make_case(n) for n in range(3)), folder)


def is_same(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("x", "corner", "size", "affine")) and (
        a.label is b.label is None or torch.equal(a.label, b.label)
    )


def test_an_item_is_a_pure_function_of_seed_and_number(manifest):
    def make(seed):
        return CropDataset(
            manifest,
            IntensityNormalization(),
            SIZE,
            num_views=2,
            labelled=True,
            seed=seed,
            augment_config=AugmentConfig(probability=1),
        )

    first, second = make(3), make(3)
    backwards = {n: second[n] for n in reversed(range(12))}
    assert all(is_same(first[n], backwards[n]) for n in range(12))
    assert not all(is_same(make(4)[n], backwards[n]) for n in range(12))
    assert is_same(pickle.loads(pickle.dumps(first))[5], backwards[5])


def test_workers_do_not_change_the_crops(manifest):
    data = CropDataset(manifest, IntensityNormalization(), SIZE)
    without_workers, with_workers = (
        torch.cat([b.x for b in DataLoader(data, 4, sampler=ResumableSampler(16), collate_fn=collate, num_workers=w)])
        for w in (0, 2)
    )
    assert torch.equal(without_workers, with_workers)


def test_every_volume_takes_its_turn(manifest):
    data = CropDataset(manifest, IntensityNormalization(), SIZE)
    volumes = [data[n].volume for n in range(30)]
    assert all(sorted(volumes[n : n + 3]) == [0, 1, 2] for n in range(0, 30, 3))
    assert len({tuple(volumes[n : n + 3]) for n in range(0, 30, 3)}) > 1


def test_corner_and_affine_locate_a_crop(manifest):
    data = CropDataset(manifest, IntensityNormalization(window_hu=(-1000, 1000)), SIZE, num_views=2)
    for n in range(20):
        item = data[n]
        hu = item.x * 2000 - 1000
        for v in range(2):
            tissue = torch.nonzero(hu[v, 0] > -500)
            assert len(tissue)
            index = tissue[0] + item.corner[v]
            assert hu[v, 0][tuple(tissue[0])].item() == pytest.approx(index[0].item(), abs=0.01)
            mm = item.affine[v] @ torch.tensor([*tissue[0].tolist(), 1.0])
            assert mm[:3].tolist() == pytest.approx((index * torch.tensor([1, 1, 2]) + item.volume).tolist())


def test_crops_stay_inside_and_smaller_volumes_are_padded_around(manifest):
    data = CropDataset(manifest, IntensityNormalization(), SIZE, num_views=2, min_overlap=0.4)
    for n in range(30):
        item = data[n]
        room = item.size - torch.tensor(SIZE)
        assert ((item.corner >= torch.minimum(room, torch.tensor(0))) & (item.corner <= room.clamp(min=-2))).all()
        assert item.x.shape == (2, 1, *SIZE) and item.x.min() >= 0 and item.x.max() <= 1
    padded = next(item for item in map(data.__getitem__, range(9)) if item.volume == 1)
    assert padded.corner[0, 2] == -2 and (padded.x[..., :2] == 0).all() and (padded.x[..., -2:] == 0).all()


@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.9])
def test_views_overlap_at_least_by_min_overlap(manifest, overlap):
    data = CropDataset(manifest, IntensityNormalization(), SIZE, num_views=3, min_overlap=overlap)
    for n in range(40):
        corner = data[n].corner
        shared = (torch.tensor(SIZE) - (corner[1:] - corner[:1]).abs()).clamp(min=0).prod(1) / np.prod(SIZE)
        assert (shared >= overlap).all()
    assert len({tuple(data[n].corner.flatten().tolist()) for n in range(40)}) > 30


def test_each_class_is_equally_likely_however_small(manifest):
    data = CropDataset(manifest, IntensityNormalization(), (16, 16, 16), labelled=True, foreground_fraction=1.0)
    labels = [data[n].label for n in range(120)]
    assert all((y > 0).any() for y in labels)
    assert sum(bool((y == 2).any()) for y in labels) > 50


def test_each_component_is_equally_likely_however_small_with_by_component(manifest, tmp_path):
    label = np.zeros(SHAPES[2], np.uint8)
    label[4:20, 4:24, 4:12], label[56, 56, 36] = 1, 1
    store.write(tmp_path / "c2.b2nd", store.read(manifest.folder / "c2.b2nd").volume(), {})
    store.write(tmp_path / "l2.b2nd", Volume(label, np.diag([1.0, 1, 2, 1]), "label"), {})
    single = Manifest((make_case(2),), tmp_path)

    def count_small(by_component):
        data = CropDataset(
            single,
            IntensityNormalization(),
            (16, 16, 16),
            labelled=True,
            foreground_fraction=1.0,
            by_component=by_component,
        )
        return sum(int((data[n].label == 1).sum()) == 1 for n in range(100))

    assert count_small(by_component=False) < 5
    assert 35 < count_small(by_component=True) < 65


def test_without_foreground_crops_follow_the_body(manifest):
    data = CropDataset(manifest, IntensityNormalization(), (16, 16, 16), labelled=True, foreground_fraction=0.0)
    assert sum(bool((data[n].label == 2).any()) for n in range(60)) < 30
    assert np.mean([(data[n].x > 0.25).float().mean() for n in range(60)]) > 0.6


def test_epochs_resume_where_they_stopped():
    whole = [list(ResumableSampler(10, epoch=e)) for e in range(3)]
    assert whole[0] + whole[1] + whole[2] == list(range(30))
    assert (
        list(ResumableSampler(10, epoch=1, start=4)) == whole[1][4:]
        and len(ResumableSampler(10, epoch=1, start=4)) == 10
    )
    resumed = ResumableSampler(10, epoch=1, start=4)
    resumed.set_epoch(1)
    assert list(resumed) == whole[1][4:]
    resumed.set_epoch(2)
    assert list(resumed) == whole[2]


def test_the_batches_of_all_processes_in_their_order_are_the_batch_of_one():
    shares = [ResumableSampler(24, epoch=1, start=12, batch_size=2, rank=r, world_size=3) for r in range(3)]
    assert [list(share) for share in shares] == [[36, 37, 42, 43], [38, 39, 44, 45], [40, 41, 46, 47]]
    assert [len(share) for share in shares] == [8, 8, 8]


def test_crops_of_nothing_or_of_unlabelled_cases_are_refused(manifest):
    with pytest.raises(BadInput, match="no cases"):
        CropDataset(Manifest((), manifest.folder), IntensityNormalization(), SIZE)
    with pytest.raises(BadInput, match="no label for c1"):
        CropDataset(
            Manifest((make_case(0), make_case(1, labelled=False)), manifest.folder),
            IntensityNormalization(),
            SIZE,
            labelled=True,
        )
    with pytest.raises(BadInput, match="channels"):
        CropDataset(Manifest((make_case(0), make_case(1, channels=2)), manifest.folder), IntensityNormalization(), SIZE)


def test_an_augmented_crop_is_filled_from_the_scan_around_it(tmp_path):
    """A scan without air: whatever a turned crop needs is there, so that no zero enters image or label."""
    shape, affine = (96, 96, 96), np.diag([1.0, 1, 2, 1])
    store.write(tmp_path / "c0.b2nd", Volume(np.full((1, *shape), 500, np.int16), affine, "HU"), {})
    store.write(tmp_path / "l0.b2nd", Volume(np.ones(shape, np.uint8), affine, "label"), {})
    full = Manifest((replace(make_case(0), shape=shape),), tmp_path)
    config = AugmentConfig(probability=1, rotate_deg=25, scale=0.2, gamma=0, contrast=0, brightness=0, noise=0)
    data = CropDataset(
        full, IntensityNormalization(window_hu=(-1000, 1000)), (16, 16, 12), labelled=True, augment_config=config
    )
    items = [data[n] for n in range(24)]
    # A crop this far inside the scan never needs what lies outside.
    inside = [m for m in items if (m.corner > 9).all() and (m.corner[0] + torch.tensor([16, 16, 12]) < 87).all()]
    assert len(inside) > 3
    for item in inside:
        assert (item.x - 0.75).abs().max() < 1e-3 and (item.label == 1).all()


def test_only_some_slices_of_a_label_are_known(manifest):
    """The label covers slices 4 to 15 of 2 mm: three of them are known, with all slices before and behind."""
    options = {"labelled": True, "foreground_fraction": 1.0}
    whole, sparse = (
        CropDataset(manifest, IntensityNormalization(), SIZE, num_label_slices=count, **options) for count in (None, 3)
    )
    checked = set()
    for number in range(24):
        item = sparse[number]
        k = item.corner[0, 2].item()
        size = item.size[2].item()
        known = (item.label[0] >= 0).all(0).all(0)
        unknown = (item.label[0] < 0).all(0).all(0)
        for n in range(SIZE[2]):
            place = n + k
            should_know = place in (6, 10, 14) or not 4 <= place <= 15
            assert (known if should_know else unknown)[n]
            if should_know and 0 <= place < size:
                true_label = whole.store.label(whole.store.manifest.cases[item.volume]).crop(
                    tuple(item.corner[0].tolist()), SIZE
                )
                assert np.array_equal(item.label[0, :, :, n].numpy(), true_label[:, :, n])
                checked.add(place)
    assert {6, 10, 14, 3, 16} <= checked
    middle = sparse[0].corner[0, 2] + SIZE[2] // 2
    assert 0 <= middle < 40 and len({tuple(sparse[n].corner[0].tolist()) for n in range(9)}) > 3
