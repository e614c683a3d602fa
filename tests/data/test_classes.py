"""Classes: sides find each other however they are written, and what is told of a case is what was drawn."""

import numpy as np
import pytest

from medssl.data import store
from medssl.data.classes import UNKNOWN, Classes
from medssl.data.crops import CropDataset
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import Recipe
from medssl.data.store import Card
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
def test_sides_change_places(names):
    assert Classes({1: "cord", 2: names[0], 5: names[1]}).mirrored() == ((2, 5),)


def test_a_side_without_the_other_forbids_mirrors():
    assert Classes({1: "left lung", 2: "heart"}).mirrored() is None
    assert Classes({1: "left lung", 2: "right kidney"}).mirrored() is None
    assert Classes({1: "Parotid L", 2: "cord"}).mirrored() is None
    sides = {1: "left lung", 2: "right lung"}
    assert Classes(sides, present={"a": [1, 2], "b": [1]}).mirrored() is None
    assert Classes(sides, present={"a": [1, 2], "b": []}).mirrored() == ((1, 2),)


@pytest.mark.parametrize("name", ["bright", "cleft", "copyright", "tumour"])
def test_names_without_a_side_are_left_alone(name):
    assert Classes({1: name, 2: "heart"}).mirrored() == ()


def test_what_nobody_labelled_is_unknown_and_no_class():
    classes = Classes.of(Card(labels={1: "lung", 2: "heart", 3: "Ignore"}))
    assert classes.names == {1: "lung", 2: "heart"} and classes.count == 3
    label = np.array([[[0, 1, 2, 3]]], np.uint8)
    assert classes.target(label).tolist() == [[[0, 1, 2, UNKNOWN]]]


def test_what_is_told_of_a_case_was_drawn_and_of_others_everything():
    classes = Classes({1: "a", 2: "b", 4: "c"}, present={"x": [2]})
    assert classes.drawn("x").tolist() == [True, False, True, True, False]
    assert classes.drawn("y").all()


def test_crops_are_drawn_about_classes_by_turns_and_never_about_what_nobody_labelled(tmp_path):
    """A class of 8 voxels is met as often as one of 4,800; most voxels are unlabelled."""
    label = np.full((40, 40, 40), 3, np.uint8)
    label[:3], label[-2:, -2:, -2:] = 1, 2
    store.write(tmp_path / "i.b2nd", Volume(np.ones((1, 40, 40, 40), np.int16), np.eye(4), "HU"), {})
    store.write(tmp_path / "l.b2nd", Volume(label, np.eye(4), "label"), {})
    case = Case("c", "p", "i.b2nd", "l.b2nd", "CT", "HU", (1.0, 1.0, 1.0), (40, 40, 40), 1, "train", "", "")
    classes = Classes({1: "large", 2: "small"}, unlabelled=3)
    crops = CropDataset(
        Manifest((case,), tmp_path), Recipe(), (8, 8, 8), labelled=True, foreground=1.0, classes=classes
    )
    seen = [set(crops[n].label.unique().tolist()) for n in range(200)]
    assert all(values <= {UNKNOWN, 1} or values <= {UNKNOWN, 2} for values in seen)
    assert 75 < sum(2 in values for values in seen) < 125 and all({1, 2} & values for values in seen)
    assert crops[0].drawn.tolist() == [True, True, True]
