"""Classes: left and right are paired by name, and annotation is known case by case."""

import numpy as np
import pytest

from medssl.data import store
from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.volume import Volume


@pytest.mark.parametrize(
    "names",
    [
        ("LeftParotid", "RightParotid"),
        ("left hippocampus", "right hippocampus"),
        ("kidney_right", "kidney_left"),
        ("Parotid L", "Parotid R"),
        ("leftlung", "rightlung"),
        ("lung, left lower lobe", "lung, right lower lobe"),
    ],
)
def test_left_and_right_are_paired_however_they_are_written(names):
    assert Classes({1: "cord", 2: names[0], 5: names[1]}).find_left_right_pairs() == ((2, 5),)


def test_a_side_without_its_counterpart_forbids_mirroring():
    assert Classes({1: "left lung", 2: "heart"}).find_left_right_pairs() is None
    assert Classes({1: "left lung", 2: "right kidney"}).find_left_right_pairs() is None
    assert Classes({1: "Parotid L", 2: "cord"}).find_left_right_pairs() is None
    sides = {1: "left lung", 2: "right lung"}
    assert Classes(sides, present={"a": [1, 2], "b": [1]}).find_left_right_pairs() is None
    assert Classes(sides, present={"a": [1, 2], "b": []}).find_left_right_pairs() == ((1, 2),)


@pytest.mark.parametrize("name", ["bright", "cleft", "copyright", "tumour"])
def test_names_without_a_side_have_no_pair(name):
    assert Classes({1: name, 2: "heart"}).find_left_right_pairs() == ()


def test_unlabelled_voxels_are_ignored_and_no_class():
    classes = Classes.from_metadata(StoreMetadata(labels={1: "lung", 2: "heart", 3: "Ignore"}))
    assert classes.names == {1: "lung", 2: "heart"} and classes.count == 3
    label = np.array([[[0, 1, 2, 3]]], np.uint8)
    assert classes.to_target(label).tolist() == [[[0, 1, 2, IGNORE_INDEX]]]


def test_a_case_with_an_entry_is_annotated_in_part_and_one_without_completely():
    classes = Classes({1: "a", 2: "b", 4: "c"}, present={"x": [2]})
    assert classes.annotation_mask("x").tolist() == [True, False, True, True, False]
    assert classes.annotation_mask("y").all()


def test_crops_are_placed_around_every_class_equally_often_and_never_around_unlabelled_voxels(tmp_path):
    """A class of 8 voxels is met as often as one of 4,800; most voxels are unlabelled."""
    label = np.full((40, 40, 40), 3, np.uint8)
    label[:3], label[-2:, -2:, -2:] = 1, 2
    store.write(tmp_path / "i.b2nd", Volume(np.ones((1, 40, 40, 40), np.int16), np.eye(4), "HU"), {})
    store.write(tmp_path / "l.b2nd", Volume(label, np.eye(4), "label"), {})
    case = Case("c", "p", "i.b2nd", "l.b2nd", "CT", "HU", (1.0, 1.0, 1.0), (40, 40, 40), 1, "train", "", "")
    classes = Classes({1: "large", 2: "small"}, ignore_label=3)
    crops = CropDataset(
        Manifest((case,), tmp_path),
        IntensityNormalization(),
        (8, 8, 8),
        labelled=True,
        foreground_fraction=1.0,
        classes=classes,
    )
    values_by_crop = [set(crops[n].label.unique().tolist()) for n in range(200)]
    assert all(values <= {IGNORE_INDEX, 1} or values <= {IGNORE_INDEX, 2} for values in values_by_crop)
    assert 75 < sum(2 in values for values in values_by_crop) < 125 and all(
        {1, 2} & values for values in values_by_crop
    )
    assert crops[0].annotated.tolist() == [True, True, True]


def test_classes_that_are_not_selected_become_background():
    label = np.array([[[0, 1, 2, 5, 9]]])
    classes = Classes({1: "lung", 2: "heart", 5: "nodule"}, ignore_label=9).select(["nodule"])
    assert dict(classes.names) == {5: "nodule"}
    assert classes.to_target(label).ravel().tolist() == [0, 0, 0, 5, IGNORE_INDEX]
    assert label.ravel().tolist() == [0, 1, 2, 5, 9]
    with pytest.raises(BadInput, match="nodul is no class of this store; its classes are lung, nodule"):
        Classes({1: "lung", 5: "nodule"}).select(["nodul"])
