"""Edits of a whole mask equal SciPy's, touch no other finding, and each is one stroke that can be taken back."""

import numpy as np
import pytest
from scipy import ndimage

from medssl.volume import Volume
from tests.viewer.test_findings import HIGH, LABELS, LOW, finding, strokes

pytestmark = pytest.mark.browser

SHAPE, SPACING = (26, 24, 16), (1.0, 1.0, 2.0)
MARGIN_MM = 2.0
EVERY_NEIGHBOUR = np.ones((3, 3, 3), bool)


def make_scan():
    voxels = np.zeros(SHAPE, np.int16)
    voxels[:13] = 100
    return Volume(voxels, np.diag([*SPACING, 1.0]), "HU")


def make_numbers():
    """A rough lesion with a hole, an island and a second lesion beside it."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=SHAPE), 1.5)
    i, j, k = np.indices(SHAPE)
    distance = np.sqrt((i - 12) ** 2 + (j - 11) ** 2 + (2 * (k - 8)) ** 2) / 7 + 1.5 * noise
    voxels = np.where(distance < 1, LOW, 0).astype(np.uint8)
    voxels[10:13, 10:13, 7:9] = LOW
    voxels[11, 11, 7] = 0
    voxels[1, 1, 1] = LOW
    voxels[21:25, 8:14, 6:11] = HIGH
    return voxels


def make_ball(radius_mm=MARGIN_MM):
    reach = [int(radius_mm // mm) for mm in SPACING]
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) * mm for r, mm in zip(reach, SPACING, strict=True)),
                                 indexing="ij"))  # fmt: skip
    return (steps**2).sum(0) <= radius_mm**2 + 1e-9


def smooth(mask):
    ball = make_ball().astype(float)
    inside = ndimage.convolve(mask.astype(float), ball, mode="constant")
    return 2 * inside > ndimage.convolve(np.ones(SHAPE), ball, mode="constant") + 1e-6


def keep_largest(mask):
    parts, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    return parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


EXPECTED = {
    "G": lambda mask: ndimage.binary_dilation(mask, make_ball()),
    "H": lambda mask: ndimage.binary_erosion(mask, make_ball(), border_value=1),
    "M": smooth,
    "F": ndimage.binary_fill_holes,
    "I": keep_largest,
}


@pytest.fixture
def editing(screen):
    findings = [finding("low", LOW, 4), finding("high", HIGH, 8)]
    volume = Volume(make_numbers(), np.diag([*SPACING, 1.0]), "label")
    screen.open(make_scan(), volume, labels=LABELS, findings=findings, editable=True)
    screen.viewer("v.store.set({ margin_mm: a })", MARGIN_MM)
    return screen


def read_mask(screen):
    flat = screen.viewer("return Array.from(v.state.overlay.data)")
    return np.array(flat, np.uint8).reshape(SHAPE, order="F")


def test_each_edit_equals_scipy_and_is_taken_back_as_one_stroke(editing):
    before = make_numbers()
    for count, (key, compute) in enumerate(EXPECTED.items(), 1):
        expected = np.where((before == 0) | (before == LOW), np.where(compute(before == LOW), LOW, 0), before)
        assert (expected != before).any()
        editing.page.keyboard.press(f"Shift+{key}")
        np.testing.assert_array_equal(read_mask(editing), expected, err_msg=key)
        assert len(strokes(editing)) == count and strokes(editing)[-1]["finding"] == "low"
        editing.page.keyboard.press("z")
        np.testing.assert_array_equal(read_mask(editing), before)


def test_a_slice_is_copied_to_the_next_without_covering_another_finding(editing):
    before = make_numbers()
    editing.viewer("v.store.set({ cursor: [12, 11, 6] })")
    editing.page.keyboard.press("Shift+>")
    expected = before.copy()
    expected[..., 7][(before[..., 6] == LOW) & (before[..., 7] == 0)] = LOW
    assert (expected != before).any()
    np.testing.assert_array_equal(read_mask(editing), expected)
    assert editing.viewer("return v.state.cursor") == [12, 11, 7] and strokes(editing)[-1]["tool"] == "copy"


@pytest.mark.parametrize("is_through", [False, True])
def test_scissors_cut_the_chosen_finding_inside_an_outline(editing, is_through):
    before = make_numbers()
    editing.viewer("v.store.set({ tool: 'scissors', cursor: [12, 11, 8], ballBrush: a })", is_through)
    corners = [(9.5, 8.5), (15.5, 8.5), (15.5, 12.5), (9.5, 12.5), (9.5, 8.5)]
    mouse = editing.page.mouse
    mouse.move(*editing.at("axial", (*corners[0], 8)))
    mouse.down()
    for corner in corners[1:]:
        mouse.move(*editing.at("axial", (*corner, 8)), steps=4)
    mouse.up()
    expected = before.copy()
    cut = expected[10:16, 9:13, slice(None) if is_through else slice(8, 9)]
    cut[cut == LOW] = 0
    assert (expected != before).any()
    np.testing.assert_array_equal(read_mask(editing), expected)
    assert editing.viewer("return v.state.measures") == []


def test_a_held_key_erases_and_an_own_range_limits_the_range_brush(editing):
    before = make_numbers()
    editing.viewer("v.store.set({ tool: 'brush', radius_mm: 2, cursor: [12, 11, 8] })")
    editing.page.keyboard.down("Control")
    editing.drag("axial", (12, 11, 8), (12, 11, 8))
    editing.page.keyboard.up("Control")
    erased = read_mask(editing)
    assert not erased[11:14, 11, 8].any() and (before[11:14, 11, 8] == LOW).any()
    editing.page.locator("summary", has_text="Edit").click()
    editing.page.get_by_label("Lowest value").fill("50")
    editing.page.get_by_label("Highest value").fill("150")
    editing.page.get_by_label("Highest value").press("Enter")
    editing.viewer("v.store.set({ tool: 'range', radius_mm: 3, window: { name: 'own', low: -1000, high: 1000 } })")
    editing.drag("axial", (13, 3, 8), (13, 3, 8))
    painted = read_mask(editing) != erased
    assert painted[:13].any() and not painted[13:].any()


def test_a_click_on_a_mask_chooses_its_finding_and_stays_there(editing):
    editing.drag("axial", (12, 11, 4), (12, 11, 4))
    editing.viewer("v.store.set({ cursor: [12, 11, 8], views: a })", {p: {"zoom": 1, "pan": [0, 0]} for p in
                   ("axial", "coronal", "sagittal")})  # fmt: skip
    editing.drag("axial", (22, 10, 8), (22, 10, 8))
    assert editing.viewer("return [v.state.selected, v.state.cursor]") == ["high", [22, 10, 8]]
    editing.drag("axial", (2, 20, 8), (2, 20, 8))
    assert editing.viewer("return v.state.selected") == "high"
