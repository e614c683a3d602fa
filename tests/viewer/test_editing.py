"""Corrections arrive voxel for voxel as they were drawn, and every stroke can be undone."""

import numpy as np
import pytest
from scipy import ndimage

from medssl.volume import Volume

pytestmark = pytest.mark.browser

SHAPE, GRID = (30, 24, 12), np.diag([1.0, 1.0, 2.0, 1.0])
LABELS = {
    "1": {"name": "nodule", "colour": "#ff8000", "visible": True},
    "2": {"name": "node", "colour": "#00ff00", "visible": True},
}


def scan():
    voxels = np.zeros(SHAPE, np.int16)
    voxels[15:] = 100
    return Volume(voxels, GRID, "HU")


def make_labels(voxels):
    return Volume(voxels.astype(np.uint8), GRID, "label")


@pytest.fixture
def drawing(screen):
    """A case with an empty mask that can be drawn on."""
    return screen.open(scan(), make_labels(np.zeros(SHAPE)), labels=LABELS, editable=True)


def mask(screen):
    """Returns the label image in the browser."""
    flat = screen.viewer("return Array.from(v.state.overlay.data)")
    return np.array(flat, np.uint8).reshape(SHAPE, order="F")


def replay_events(screen, before=None):
    """Returns the label image that follows from the events, as a server sees it."""
    flat = np.zeros(np.prod(SHAPE), np.uint8) if before is None else before.ravel(order="F").copy()
    events = {event["seq"]: event for event in screen.list_sent_events()}
    undone = {event["of"] for event in events.values() if event["kind"] == "undo"}
    for seq in sorted(events):
        if events[seq]["kind"] == "stroke" and seq not in undone:
            for start, length, label in events[seq]["runs"]:
                flat[start : start + length] = label
    return flat.reshape(SHAPE, order="F")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_brush_stroke_is_a_disc_along_the_drag_and_arrives_exactly(drawing, plane):
    drawing.viewer("v.store.set({ radius_mm: 3, tool: 'brush', cursor: [15, 12, 6] })")
    drawing.drag(plane, (15, 12, 6), (15, 12, 6))
    across = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    offsets = (np.indices(SHAPE) - np.array([15, 12, 6]).reshape(3, 1, 1, 1)) * np.array([1, 1, 2]).reshape(3, 1, 1, 1)
    expected = ((offsets**2).sum(0) <= 9) & (offsets[across] == 0)
    np.testing.assert_array_equal(mask(drawing), expected)
    np.testing.assert_array_equal(replay_events(drawing), expected)


def test_a_ball_goes_through_the_slices_and_a_long_drag_has_no_gaps(drawing):
    drawing.viewer("v.store.set({ radius_mm: 2, ballBrush: true, tool: 'brush', cursor: [15, 12, 6] })")
    drawing.drag("axial", (4, 12, 6), (26, 12, 6))
    painted = mask(drawing)
    assert painted[4:27, 12, 6].all() and painted[4:27, 12, 5].all() and not painted[:, :, 4].any()
    np.testing.assert_array_equal(replay_events(drawing), painted)


def test_erase_undo_and_redo_leave_browser_and_events_agreed(screen):
    before = np.zeros(SHAPE, np.uint8)
    before[8:22, 6:18, 3:9] = 2
    screen.open(scan(), make_labels(before), labels=LABELS, editable=True)
    screen.viewer("v.store.set({ radius_mm: 3, label: 2, tool: 'erase', cursor: [15, 12, 6] })")
    screen.drag("axial", (12, 12, 6), (18, 12, 6))
    erased = mask(screen)
    assert not erased[12:19, 12, 6].any() and erased.sum() < before.sum()
    screen.page.keyboard.press("z")
    np.testing.assert_array_equal(mask(screen), before)
    screen.page.keyboard.press("Shift+Z")
    np.testing.assert_array_equal(mask(screen), erased)
    screen.page.keyboard.press("z")
    np.testing.assert_array_equal(mask(screen), replay_events(screen, before))


def test_the_range_brush_stays_inside_the_window(drawing):
    drawing.viewer("v.store.set({ radius_mm: 5, tool: 'range', cursor: [15, 12, 6] })")
    drawing.viewer("v.store.set({ window: { name: 'own', low: 50, high: 150 } })")
    drawing.drag("axial", (15, 12, 6), (15, 12, 6))
    painted = mask(drawing)
    assert painted[15:, :, :].any() and not painted[:15].any()


def test_fill_fills_an_outline_and_refuses_an_open_one(screen):
    ring = np.zeros(SHAPE, np.uint8)
    ring[5:20, 5:18, 6] = 1
    ring[6:19, 6:17, 6] = 0
    screen.open(scan(), make_labels(ring), labels=LABELS, editable=True)
    screen.viewer("v.store.set({ tool: 'fill', cursor: [15, 12, 6] })")
    screen.drag("axial", (2, 2, 6), (2, 2, 6))
    assert "Not closed" in screen.page.locator(".mv-notice").inner_text()
    np.testing.assert_array_equal(mask(screen), ring)
    screen.drag("axial", (12, 12, 6), (12, 12, 6))
    np.testing.assert_array_equal(mask(screen)[..., 6], ndimage.binary_fill_holes(ring[..., 6]))
    np.testing.assert_array_equal(replay_events(screen, ring), mask(screen))


def test_interpolation_follows_the_shape_between_slices(screen):
    before = np.zeros(SHAPE, np.uint8)
    x, y = np.mgrid[:30, :24]
    for level, radius in ((2, 3), (8, 9)):
        before[..., level] = (x - 15) ** 2 + (y - 12) ** 2 <= radius**2
    screen.open(scan(), make_labels(before), labels=LABELS, editable=True)
    screen.page.keyboard.press("i")
    np.testing.assert_array_equal(mask(screen), before)  # a proposal, until the second press
    screen.page.keyboard.press("i")
    after = mask(screen)
    np.testing.assert_array_equal(after[..., [2, 8]], before[..., [2, 8]])
    areas = after.sum((0, 1))
    assert (np.diff(areas[2:9].astype(int)) > 0).all() and areas[1] == areas[9] == 0
    assert np.sqrt(areas[5] / np.pi) == pytest.approx(6, abs=0.4)
    distances = [ndimage.distance_transform_edt(1 - before[..., n]) - ndimage.distance_transform_edt(before[..., n])
                 for n in (2, 8)]  # fmt: skip
    np.testing.assert_array_equal(after[..., 5] > 0, sum(distances) < 0)
    np.testing.assert_array_equal(replay_events(screen, before), after)


def test_a_signed_case_cannot_be_drawn_on_until_it_is_open_again(drawing):
    drawing.page.keyboard.press("b")
    drawing.show(editable=False)
    drawing.drag("axial", (12, 12, 6), (14, 12, 6))
    assert drawing.list_sent_events() == [] and not mask(drawing).any()
    assert "closed to changes" in drawing.page.locator(".mv-notice").inner_text()
    assert not drawing.page.get_by_role("button", name="Brush").is_visible()
    drawing.show(editable=True)
    drawing.drag("axial", (12, 12, 6), (14, 12, 6))
    assert mask(drawing).any()


def test_where_the_model_saw_nothing_a_reader_still_draws(screen):
    screen.open(scan(), None, labels=LABELS, editable=True)
    screen.viewer("v.store.set({ tool: 'brush', cursor: [15, 12, 6] })")
    screen.drag("axial", (12, 12, 6), (14, 12, 6))
    assert mask(screen).any()
    screen.served["moved"] = screen.served[screen.data["volume"].split("/")[3]]
    screen.show(volume="/api/volume/moved/header.json")
    screen.wait_until_loaded()
    np.testing.assert_array_equal(replay_events(screen), mask(screen))
