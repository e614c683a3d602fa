"""Figures hold what they were given, in its proportions."""

import io

import numpy as np
import pytest
from PIL import Image

from medssl.render import figures
from medssl.render.montage import add_caption, contact_sheet
from medssl.render.windows import Window
from medssl.volume import Volume


def test_a_preview_has_a_column_a_volume_and_a_row_a_plane():
    x = np.zeros((1, 20, 20, 20), np.float32)
    single, three = (
        figures.reconstruction_preview({"input": x}),
        figures.reconstruction_preview({"input": x, "visible": x * np.nan, "rebuilt": x + 1}),
    )
    assert three.height == single.height and three.width > 2.9 * single.width - 20
    middle = [three.getpixel((three.width * n // 6, three.height // 2)) for n in (1, 3, 5)]
    assert middle == [(0, 0, 0), (28, 38, 52), (255, 255, 255)]


def test_a_preview_of_unlike_shapes_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        figures.reconstruction_preview(
            {"a": np.zeros((1, 2, 2, 2), np.float32), "b": np.zeros((1, 2, 2, 3), np.float32)}
        )


def test_thick_slices_are_drawn_thick():
    x = np.zeros((1, 40, 40, 10), np.float32)
    assert (
        figures.reconstruction_preview({"x": x}, (1.0, 1.0, 4.0)).size
        == figures.reconstruction_preview({"x": x[:, :10, :10]}, (4.0, 4.0, 4.0)).size
    )


def test_the_left_of_the_patient_is_on_the_right_of_a_figure_however_it_is_stored():
    voxels = np.full((30, 20, 10), -1000, np.int16)
    voxels[3:6, 8:12, 4:7] = 400
    scan = Volume(voxels, np.diag([1.0, 1.0, 3.0, 1.0]), "HU")
    pictures = [figures.planes_through(scan.reorient(codes), (4.0, 10.0, 15.0)) for codes in ("RAS", "LPS", "SAR")]
    assert all(np.array_equal(pictures[0], other) for other in pictures)
    axial = np.asarray(pictures[0])[:, :320, 0]
    assert np.argwhere(axial == 255)[:, 1].min() > 160


def test_a_contact_sheet_shows_labels_and_is_a_png():
    scan = Volume(np.zeros((16, 16, 9), np.int16), np.eye(4), "HU")
    labels = Volume(np.ones((16, 16, 9), np.uint8), np.eye(4), "label")
    with_labels, without = contact_sheet(scan, labels), contact_sheet(scan)
    assert with_labels.size == without.size and not np.array_equal(with_labels, without)
    assert Image.open(io.BytesIO(figures.encode_png(with_labels))).size == with_labels.size


def test_a_contact_sheet_moves_the_nearest_plane_to_a_point():
    """A structure of one slice, which evenly spaced planes miss, is in the picture."""
    scan = Volume(np.zeros((16, 16, 90), np.int16), np.eye(4), "HU")
    labels = Volume(np.zeros((16, 16, 90), np.uint8), np.eye(4), "label")
    labels.voxels[4:9, 4:9, 47] = 1
    blank, shown = (contact_sheet(scan, labels, points_mm=points) for points in ((), [(6.0, 6.0, 47.0)] * 30))
    assert np.array_equal(blank, contact_sheet(scan)) and not np.array_equal(blank, shown)
    assert add_caption(blank, "Research use only.").height > blank.height


def test_a_disputed_picture_goes_through_the_dispute_and_colours_only_it():
    image = Volume(np.full((20, 16, 12), -1000, np.int16), np.diag([1.0, 1.0, 2.0, 1.0]), "HU")
    disputed = np.zeros(image.shape, np.uint8)
    disputed[3:6, 4:7, 5] = 1
    axial = np.asarray(figures.disagreement_map(image, disputed, 2))[:, 6:273].astype(int)
    coloured = axial[..., 0] - axial[..., 2] > 150
    assert np.flatnonzero(coloured.any(0)).mean() > 150  # the patient's left lies on the right of the screen
    assert coloured.sum() == pytest.approx(8 * (320 / 24) ** 2, rel=0.05)  # the voxel inside the outline is paler


def a_small_lesion(corner: tuple[int, int, int]) -> tuple[Volume, Volume, tuple, tuple, tuple]:
    """A lesion of 6 mm in a body of 200 mm, with its bounding box and its centre."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    voxels, mask = np.full((100, 100, 100), -800, np.int16), np.zeros((100, 100, 100), np.uint8)
    inside = tuple(slice(c, c + 3) for c in corner)
    voxels[inside], mask[inside] = 100, 1
    low, high = (tuple(2.0 * c + shift for c in corner) for shift in (-1.0, 5.0))
    centre = tuple(2.0 * (c + 1) for c in corner)
    return Volume(voxels, affine, "HU"), Volume(mask, affine, "label"), low, high, centre


def test_a_small_lesion_is_cropped_to_and_pointed_at_with_a_scale():
    image, labels, low, high, centre = a_small_lesion((20, 50, 50))
    page = figures.lesion_planes(image, labels, low, high, centre, Window(-1350, 150))
    axial = np.asarray(page)[24:, 372:732].astype(int)  # the second picture
    lesion = np.argwhere(axial.min(-1) > 200)[:, :2]
    lesion = lesion[lesion[:, 0] < 300]  # the scale and the letters lie at the edges
    lesion = lesion[(np.abs(lesion - 180) < 150).all(1)]
    assert np.ptp(lesion, axis=0).min() > 30  # 6 mm of about 54 mm, less the outline; of 200 mm it would be 11 pixels
    yellow = np.argwhere((axial[..., 0] > 220) & (axial[..., 2] < 120))
    assert len(yellow) > 100 and np.linalg.norm(yellow - lesion.mean(0), axis=1).min() < 40
    bar = (axial[346] == figures.INK).all(-1).sum()
    assert bar == pytest.approx(10 * 360 / 54, rel=0.1)


def test_a_lesion_at_the_edge_of_the_image_has_its_planes():
    image, labels, low, high, centre = a_small_lesion((0, 97, 0))
    page = figures.lesion_planes(image, labels, low, high, centre, Window(-1350, 150))
    assert page.width > 3 * 360 and (np.asarray(page) == figures.ARROW).all(-1).sum() > 300


def test_the_patients_left_stays_on_the_right_in_a_cropped_picture():
    image, labels, low, high, centre = a_small_lesion((20, 50, 50))
    page = figures.lesion_planes(image, labels, low, high, centre, Window(-1350, 150))
    frame = np.argwhere((np.asarray(page)[30:380, 10:360] == figures.ARROW).all(-1))
    assert frame[:, 1].mean() > 220  # R is low in RAS, so the lesion at i = 20 of 100 lies right of the middle
