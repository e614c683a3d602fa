"""Planes show the patient the way radiologists expect."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medssl.render.planes import HIDDEN, PLANES, cut, draw, orientation_letters, outline, plane_size_mm
from medssl.render.windows import HU_PRESETS, Window, choose_window, default_preset, window_presets
from medssl.volume import Volume


def test_left_is_right_anterior_is_up_and_superior_is_up():
    voxels = np.zeros((9, 8, 7))
    voxels[1, 6, 5] = 1  # left, anterior, superior
    for plane, index, place in (("axial", 5, (1, 7)), ("coronal", 6, (1, 7)), ("sagittal", 1, (1, 1))):
        assert np.argwhere(cut(voxels, plane, index)).tolist() == [list(place)]


def test_letters_are_those_of_a_light_box():
    assert orientation_letters(np.eye(4), "axial") == ("R", "L", "A", "P")
    assert orientation_letters(np.eye(4), "coronal") == ("R", "L", "S", "I")
    assert orientation_letters(np.eye(4), "sagittal") == ("A", "P", "S", "I")


def test_planes_have_the_size_of_the_patient():
    sizes = [plane_size_mm((10, 20, 30), (1.0, 2.0, 3.0), plane) for plane in PLANES]
    assert sizes == [(10, 40), (10, 90), (40, 90)]


@given(st.floats(-2000, 2000), st.floats(1, 4000), st.lists(st.floats(-3000, 3000), min_size=1))
def test_a_window_is_black_below_white_above_and_never_falls(low, width, values):
    window = Window(low, low + width)
    grey = window.to_grey(np.sort(np.array([*values, low - 1, low + width + 1])))
    assert grey[0] == 0 and grey[-1] == 255 and (np.diff(grey.astype(int)) >= 0).all()


def test_presets_of_a_ct_are_in_hu_and_open_where_there_is_something_to_see():
    lungs = Volume(np.full((6, 6, 6), -800, np.int16), np.eye(4), "HU")
    head = Volume(np.full((6, 6, 6), 40, np.int16), np.eye(4), "HU")
    assert (default_preset(lungs), default_preset(head)) == ("lung", "soft tissue")
    assert window_presets(lungs) == HU_PRESETS and list(HU_PRESETS)[:3] == ["lung", "bone", "soft tissue"]


@pytest.mark.parametrize("fill", [0, 5])
def test_presets_of_an_mr_follow_its_values_and_have_a_width(fill):
    constant = Volume(np.full((4, 4, 4), fill, np.float32), np.eye(4), "a.u.")
    assert all(w.high > w.low for w in window_presets(constant).values())
    ramp = Volume(np.arange(1000, dtype=np.float32).reshape(10, 10, 10), np.eye(4), "a.u.")
    window = window_presets(ramp)[default_preset(ramp)]
    assert window.low == pytest.approx(10, abs=2) and window.high == pytest.approx(989, abs=2)


def test_labels_are_outlined_and_hidden_voxels_are_slate():
    values = np.full((5, 5), 0.5)
    values[0, 0] = np.nan
    labels = np.zeros((5, 5), np.uint8)
    labels[1:4, 1:4] = 2
    rgb = draw(values, Window(0, 1), labels, {2: (255, 0, 0)}, opacity=0.0)
    assert tuple(rgb[0, 0]) == HIDDEN
    assert tuple(rgb[1, 1]) == (255, 0, 0) and tuple(rgb[2, 2]) == (128, 128, 128)
    assert outline(labels > 0).sum() == 8


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("lung nodule", "lung"), ("lymph node", "mediastinum"), ("Lymph_nodes of the lung", "mediastinum"),
        ("liver_tumour", "liver"), ("rib fracture", "bone"), ("intracranial haemorrhage", "brain"),
        ("pancreas", "soft tissue"),
    ],
)  # fmt: skip
def test_a_structure_has_the_window_of_its_organ(name, preset):
    lungs = Volume(np.full((4, 4, 4), -800, np.int16), np.eye(4), "HU")
    assert choose_window(name, lungs) == (preset, HU_PRESETS[preset])


@pytest.mark.parametrize(("value", "preset"), [(-800, "lung"), (40, "liver"), (200, "mediastinum"), (900, "bone")])
def test_the_grey_values_decide_on_the_window_of_another_structure(value, preset):
    assert choose_window("target", Volume(np.full((4, 4, 4), value, np.int16), np.eye(4), "HU"))[0] == preset


def test_an_mr_has_the_window_of_the_region():
    region = Volume(np.arange(1000, dtype=np.float32).reshape(10, 10, 10), np.eye(4), "a.u.")
    assert choose_window("tumour", region) == ("1-99 %", window_presets(region)["1-99 %"])
