"""Editing acts on the chosen finding, and the screen shows what the verdicts make of the findings."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.volume import Volume

pytestmark = pytest.mark.browser

SHAPE, GRID = (30, 24, 40), np.diag([1.0, 1.0, 2.0, 1.0])
LABELS = {
    "1": {"name": "nodule", "colour": "#ff8000", "visible": True},
    "2": {"name": "node", "colour": "#00ff00", "visible": True},
}
LOW, HIGH = 3, 4  # the numbers of two findings, above the largest label


def scan():
    return Volume(np.zeros(SHAPE, np.int16), GRID, "HU")


def disc(radius):
    x, y = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (x - 15) ** 2 + (y - 12) ** 2 <= radius**2


def numbers():
    """Two nodules one above the other, 26 slices apart."""
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[disc(3), 2:5] = LOW
    voxels[disc(3), 31:34] = HIGH
    return Volume(voxels, GRID, "label")


def finding(name, number, k, **facts):
    return {"id": name, "label": 1, "name": "nodule", "number": number, "centre_mm": [15, 12, 2 * k],
            "diameter_mm": 6.0, "volume_ml": 941.71, "score": 0.9, "parts": []} | facts  # fmt: skip


FINDINGS = [finding("low", LOW, 3), finding("high", HIGH, 32)]


@pytest.fixture
def reading(screen):
    return screen.open(scan(), numbers(), labels=LABELS, findings=FINDINGS, editable=True)


def mask(screen):
    return np.array(screen.viewer("return Array.from(v.state.overlay.data)")).reshape(SHAPE, order="F")


def strokes(screen):
    events = {(event["client"], event["seq"]): event for event in screen.list_sent_events()}  # sent until acknowledged
    return [event for event in events.values() if event["kind"] == "stroke"]


def test_interpolation_acts_on_the_chosen_finding_after_a_preview(reading):
    before, keys, notice = mask(reading), reading.page.keyboard, reading.page.locator(".mv-notice")
    keys.press("i")
    assert "Nothing to interpolate" in notice.inner_text() and (mask(reading) == before).all()
    reading.viewer("v.store.set({ tool: 'brush', radius_mm: 5, cursor: [15, 12, 10] })")
    reading.drag("axial", (15, 12, 10), (15, 12, 10))
    drawn = mask(reading)
    assert reading.viewer("return v.state.selected") == "low" and (drawn[disc(5), 10] == LOW).all()
    keys.press("i")
    assert "I again keeps it" in notice.inner_text() and len(strokes(reading)) == 1
    assert (mask(reading) == drawn).all()
    reading.viewer("v.store.set({ cursor: [15, 12, 7] })")
    assert reading.colours("axial", [(15, 12, 7)]) != [[255, 255, 255]]
    ghost = reading.viewer("return v.panes[0].top.getContext('2d').getImageData(...v.panes[0].frame"
                           ".toPixel([13, 12, 7]).map(Math.floor), 1, 1).data[3]")  # fmt: skip
    assert ghost > 60
    keys.press("Escape")
    keys.press("i")
    keys.press("i")
    filled = mask(reading)
    assert (filled[:, :, 5:10] == LOW).any((0, 1)).all() and not filled[:, :, 11:31].any()
    assert (filled[:, :, 31:34] == before[:, :, 31:34]).all()
    last = strokes(reading)[-1]
    assert last["finding"] == "low" and {run[2] for run in last["runs"]} == {1}  # the record holds labels
    keys.press("z")
    assert (mask(reading) == drawn).all()


def test_a_rejected_finding_leaves_the_screen_and_a_relabelled_one_changes_colour(reading):
    plain, labelled = (15, 20, 3), (15, 12, 3)
    background, orange = reading.colours("axial", [plain, labelled])
    assert background != orange
    reading.viewer("v.store.set({ crosshairVisible: false })")
    reading.page.keyboard.press("x")
    reading.viewer("v.reading.select('low')")
    assert reading.colours("axial", [labelled]) == [background]
    assert (mask(reading)[disc(3), 3] == LOW).all()  # it is hidden, not erased
    outline = ("return v.panes[0].top.getContext('2d').getImageData(...v.panes[0].frame.toPixel([15, 12, 3])"
               ".map(n => Math.floor(n) - 120), 240, 240).data.some((n, k) => k % 4 === 3 && n > 0)")  # fmt: skip
    assert not reading.viewer(outline)
    reading.page.keyboard.press("Shift+X")
    assert reading.viewer(outline)
    reading.viewer("v.store.set({ tool: 'brush' })")
    reading.drag("axial", (15, 12, 3), (16, 12, 3))
    assert "rejected" in reading.page.locator(".mv-notice").inner_text() and not strokes(reading)
    reading.page.keyboard.press("z")
    assert reading.colours("axial", [labelled]) == [orange]
    reading.page.keyboard.press("k")
    reading.page.keyboard.press("1")
    reading.viewer("v.reading.select('low')")
    (green,) = reading.colours("axial", [labelled])
    assert green[1] > green[0] and green not in (orange, background)
    decided = [FINDINGS[0] | {"decision": "reject"}, FINDINGS[1] | {"decision": "relabel", "relabelled": 2}]
    reading.acknowledge(findings=decided)  # as after a reload
    assert reading.colours("axial", [labelled]) == [background]
    reading.viewer("v.reading.select('high')")
    assert reading.colours("axial", [(15, 12, 32)]) == [green]


def test_drawing_over_a_rejected_finding_gives_its_voxels_to_the_chosen_one(reading):
    reading.page.keyboard.press("x")
    assert reading.viewer("return v.state.selected") == "high"
    reading.viewer("v.store.set({ tool: 'brush', radius_mm: 1, cursor: [15, 12, 3] })")
    reading.drag("axial", (15, 12, 3), (15, 12, 3))
    assert mask(reading)[15, 12, 3] == HIGH and strokes(reading)[0]["finding"] == "high"


def test_a_stroke_that_begins_on_a_finding_is_drawn_for_it(reading):
    reading.viewer("v.store.set({ tool: 'brush', radius_mm: 1, cursor: [15, 12, 32] })")
    reading.drag("axial", (15, 12, 32), (22, 12, 32))
    assert reading.viewer("return v.state.selected") == "high" and strokes(reading)[0]["finding"] == "high"
    assert set(np.unique(mask(reading)[15:23, 12, 32])) == {HIGH}


def test_another_label_than_that_of_the_chosen_finding_is_drawn_for_none(reading):
    reading.viewer("v.store.set({ tool: 'brush', radius_mm: 1, label: 2, cursor: [5, 5, 20] })")
    reading.drag("axial", (5, 5, 20), (5, 5, 20))
    (stroke,) = strokes(reading)
    assert stroke["finding"] is None and {run[2] for run in stroke["runs"]} == {2} and mask(reading)[5, 5, 20] == 2


def test_the_card_shows_sizes_in_plain_digits_and_the_parts_of_a_finding(reading):
    card = reading.page.locator(".mv-card").first
    expect(card).to_contain_text("942 ml")
    part = {"id": "low-part-1", "diameter_mm": 33.4, "volume_ml": 6.78}
    reading.show(
        findings=[FINDINGS[0] | {"volume_ml": 3.03, "parts": [part]}, finding("new", 5, 9, volume_ml=0, diameter_mm=0)]
    )
    expect(card).to_contain_text("3.03 ml")
    expect(card).to_contain_text("and apart: 33.4 mm")
    expect(reading.page.locator(".mv-card").nth(1)).to_contain_text("nothing drawn")


def test_measured_axes_can_be_hidden(reading):
    axes = {"plane": "axial", "long": [[5, 12, 6], [25, 12, 6]], "short": [[15, 4, 6], [15, 20, 6]]}
    reading.show(findings=[FINDINGS[0] | {"axes": axes}, FINDINGS[1]])
    yellow = ("const { top } = v.panes[0]; const d = top.getContext('2d').getImageData(0, 0, top.width, top.height)"
              ".data; let n = 0; for (let k = 0; k < d.length; k += 4) n += d[k] === 255 && d[k + 1] === 213;"
              "return n")  # fmt: skip
    reading.viewer("")
    assert reading.viewer(yellow) > 50
    reading.page.keyboard.press("Shift+R")
    reading.viewer("")  # waits for the drawing
    assert reading.viewer(yellow) == 0
    reading.page.locator("summary", has_text="Show").click()
    reading.page.get_by_role("button", name="Axes", exact=True).click()
    reading.viewer("")
    assert reading.viewer(yellow) > 50
