"""Figures hold what they were given, in its proportions."""

import io

import numpy as np
import pytest
from PIL import Image

from medssl.render import figures
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
    with_labels, without = figures.contact_sheet(scan, labels), figures.contact_sheet(scan)
    assert with_labels.size == without.size and not np.array_equal(with_labels, without)
    assert Image.open(io.BytesIO(figures.encode_png(with_labels))).size == with_labels.size


def test_a_disputed_picture_goes_through_the_dispute_and_colours_only_it():
    image = Volume(np.full((20, 16, 12), -1000, np.int16), np.diag([1.0, 1.0, 2.0, 1.0]), "HU")
    disputed = np.zeros(image.shape, np.uint8)
    disputed[3:6, 4:7, 5] = 1
    axial = np.asarray(figures.disagreement_map(image, disputed, 2))[:, 6:273].astype(int)
    coloured = axial[..., 0] - axial[..., 2] > 150
    assert np.flatnonzero(coloured.any(0)).mean() > 150  # the patient's left lies on the right of the screen
    assert coloured.sum() == pytest.approx(8 * (320 / 24) ** 2, rel=0.05)  # the voxel inside the outline is paler
