"""Crops: pure functions of seed and number, on the body, on every class, with their true place."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medssl.data import store
from medssl.data.crops import CropDataset, Epochs, collate
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import Recipe
from medssl.data.transforms.augmentation import Augment
from medssl.errors import BadInput
from medssl.volume import Volume

SHAPES = [(48, 40, 36), (30, 52, 20), (64, 64, 40)]
SIZE = (24, 24, 24)


def case(n, labelled=True, channels=1):
    return Case(
        f"c{n}", f"p{n}", f"c{n}.b2nd", f"l{n}.b2nd" if labelled else None, "CT", "HU", (1, 1, 2), SHAPES[n], channels,
        "train", "", "",
    )  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Three CTs whose voxels tell their index: HU = i on a body, and labels 1 (large) and 2 (one voxel)."""
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
    return Manifest(tuple(case(n) for n in range(3)), folder)


def same(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("x", "corner", "size", "affine")) and (
        a.label is b.label is None or torch.equal(a.label, b.label)
    )


def test_an_item_is_a_pure_function_of_seed_and_number(manifest):
    def make(seed):
        return CropDataset(manifest, Recipe(), SIZE, views=2, labelled=True, seed=seed, augment=Augment(share=1))

    one, other = make(3), make(3)
    backwards = {n: other[n] for n in reversed(range(12))}
    assert all(same(one[n], backwards[n]) for n in range(12))
    assert not all(same(make(4)[n], backwards[n]) for n in range(12))
    assert same(pickle.loads(pickle.dumps(one))[5], backwards[5])


def test_workers_do_not_change_what_is_drawn(manifest):
    data = CropDataset(manifest, Recipe(), SIZE)
    alone, many = (
        torch.cat([b.x for b in DataLoader(data, 4, sampler=Epochs(16), collate_fn=collate, num_workers=w)])
        for w in (0, 2)
    )
    assert torch.equal(alone, many)


def test_every_volume_takes_its_turn(manifest):
    data = CropDataset(manifest, Recipe(), SIZE)
    turns = [data[n].volume for n in range(30)]
    assert all(sorted(turns[n : n + 3]) == [0, 1, 2] for n in range(0, 30, 3))
    assert len({tuple(turns[n : n + 3]) for n in range(0, 30, 3)}) > 1


def test_corner_and_affine_say_where_a_crop_was_cut(manifest):
    data = CropDataset(manifest, Recipe(window_hu=(-1000, 1000)), SIZE, views=2)
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
    data = CropDataset(manifest, Recipe(), SIZE, views=2, overlap=0.4)
    for n in range(30):
        item = data[n]
        room = item.size - torch.tensor(SIZE)
        assert ((item.corner >= torch.minimum(room, torch.tensor(0))) & (item.corner <= room.clamp(min=-2))).all()
        assert item.x.shape == (2, 1, *SIZE) and item.x.min() >= 0 and item.x.max() <= 1
    padded = next(item for item in map(data.__getitem__, range(9)) if item.volume == 1)
    assert padded.corner[0, 2] == -2 and (padded.x[..., :2] == 0).all() and (padded.x[..., -2:] == 0).all()


@pytest.mark.parametrize("overlap", [0.2, 0.5, 0.9])
def test_views_overlap_at_least_as_asked(manifest, overlap):
    data = CropDataset(manifest, Recipe(), SIZE, views=3, overlap=overlap)
    for n in range(40):
        corner = data[n].corner
        shared = (torch.tensor(SIZE) - (corner[1:] - corner[:1]).abs()).clamp(min=0).prod(1) / np.prod(SIZE)
        assert (shared >= overlap).all()
    assert len({tuple(data[n].corner.flatten().tolist()) for n in range(40)}) > 30


def test_each_class_is_met_as_often_however_small(manifest):
    data = CropDataset(manifest, Recipe(), (16, 16, 16), labelled=True, foreground=1.0)
    labels = [data[n].label for n in range(120)]
    assert all((y > 0).any() for y in labels)
    assert sum(bool((y == 2).any()) for y in labels) > 50


def test_each_part_of_a_class_is_met_as_often_however_small_where_asked(manifest, tmp_path):
    label = np.zeros(SHAPES[2], np.uint8)
    label[4:20, 4:24, 4:12], label[56, 56, 36] = 1, 1
    store.write(tmp_path / "c2.b2nd", store.read(manifest.folder / "c2.b2nd").volume(), {})
    store.write(tmp_path / "l2.b2nd", Volume(label, np.diag([1.0, 1, 2, 1]), "label"), {})
    few = Manifest((case(2),), tmp_path)

    def met(by_part):
        data = CropDataset(few, Recipe(), (16, 16, 16), labelled=True, foreground=1.0, by_part=by_part)
        return sum(int((data[n].label == 1).sum()) == 1 for n in range(100))

    assert met(by_part=False) < 5
    assert 35 < met(by_part=True) < 65


def test_without_foreground_crops_follow_the_body(manifest):
    data = CropDataset(manifest, Recipe(), (16, 16, 16), labelled=True, foreground=0.0)
    assert sum(bool((data[n].label == 2).any()) for n in range(60)) < 30
    assert np.mean([(data[n].x > 0.25).float().mean() for n in range(60)]) > 0.6


def test_epochs_go_on_where_they_stopped():
    whole = [list(Epochs(10, epoch=e)) for e in range(3)]
    assert whole[0] + whole[1] + whole[2] == list(range(30))
    assert list(Epochs(10, epoch=1, start=4)) == whole[1][4:] and len(Epochs(10, epoch=1, start=4)) == 6
    resumed = Epochs(10, epoch=1, start=4)
    resumed.set_epoch(1)
    assert list(resumed) == whole[1][4:]
    resumed.set_epoch(2)
    assert list(resumed) == whole[2]
    shares = [list(Epochs(10, epoch=1, rank=r, world=3)) for r in range(3)]
    assert sorted(n for share in shares for n in share) == whole[1]


def test_crops_of_nothing_or_of_unlabelled_cases_are_refused(manifest):
    with pytest.raises(BadInput, match="no cases"):
        CropDataset(Manifest((), manifest.folder), Recipe(), SIZE)
    with pytest.raises(BadInput, match="no label for c1"):
        CropDataset(Manifest((case(0), case(1, labelled=False)), manifest.folder), Recipe(), SIZE, labelled=True)
    with pytest.raises(BadInput, match="channels"):
        CropDataset(Manifest((case(0), case(1, channels=2)), manifest.folder), Recipe(), SIZE)
