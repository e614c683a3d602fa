"""Clicks become a ghost; Enter keeps it as one stroke that names its tool, Escape drops it."""

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.review.assist.assist_request import AssistRequest, describe_proposal
from medssl.review.assist.proposal import ENGINE, ENGINE_VERSION, AssistImage, apply_proposal, propose_mask
from medssl.volume import Volume
from tests.viewer.test_findings import HIGH, LABELS, LOW, finding, strokes

pytestmark = pytest.mark.browser

SHAPE, GRID = (36, 32, 20), np.diag([1.0, 1.0, 1.0, 1.0])
URL = "/api/assist/token"
TOOL = (ENGINE, ENGINE_VERSION)


def make_ball(centre, radius):
    return ((np.indices(SHAPE) - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2


LESION, OTHER, LEAK = make_ball((12, 16, 10), 6), make_ball((28, 16, 10), 4), make_ball((12, 25, 10), 3)


def make_scan():
    voxels = np.random.default_rng(2).normal(0, 8, SHAPE) + 90 * (LESION | OTHER)
    return Volume(voxels.astype(np.int16), GRID, "HU")


def make_numbers():
    """Half of the lesion and a leak have its number; another finding is complete."""
    voxels = np.where((LESION & (np.indices(SHAPE)[0] < 12)) | LEAK, LOW, 0)
    return np.where(OTHER, HIGH, voxels).astype(np.uint8)


@pytest.fixture
def assisted(screen):
    """A case with two findings, and a server that proposes with the engine of the app."""
    image = AssistImage.from_volume(make_scan())

    def propose(route):
        if route.request.method == "GET":
            return route.fulfill(json={"num_cases": 0})
        try:
            request = AssistRequest.parse(route.request.post_data_buffer)
            before = request.read_mask(SHAPE)
            proposal = propose_mask(image, before, request.read_clicks(SHAPE), None, request.read_slices(SHAPE))
        except BadInput as error:
            return route.fulfill(status=400, json={"reason": str(error)})
        return route.fulfill(json=describe_proposal(before, apply_proposal(before, proposal), proposal, *TOOL))

    findings = [finding("low", LOW, 10), finding("high", HIGH, 10)]
    volume = Volume(make_numbers(), GRID, "label")
    screen.open(make_scan(), volume, labels=LABELS, findings=findings, editable=True, assist=URL)
    screen.page.route("**/api/assist/**", propose)
    screen.viewer("v.store.set({ cursor: [12, 16, 10] }); v.reading.select('low', false, false)")
    screen.page.keyboard.press("Shift+C")
    return screen


def read_mask(screen):
    flat = screen.viewer("return Array.from(v.state.overlay.data)")
    return np.array(flat, np.uint8).reshape(SHAPE, order="F")


def mark(screen, voxel, is_inside=True):
    """Clicks a voxel and waits for the proposal."""
    if not is_inside:
        screen.page.keyboard.down("Control")
    screen.drag("axial", voxel, voxel)
    if not is_inside:
        screen.page.keyboard.up("Control")
    wait_for_proposal(screen)


def wait_for_proposal(screen):
    screen.page.wait_for_function(
        "() => { const { assist } = document.querySelector('.mv').viewer.state; return assist && !assist.isBusy }"
    )


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_clicks_complete_a_finding_and_enter_keeps_it_as_one_stroke(assisted):
    before, keys = make_numbers(), assisted.page.keyboard
    mark(assisted, (15, 16, 10))
    mark(assisted, (12, 25, 10), is_inside=False)
    assist = assisted.viewer("return v.state.assist")
    assert assist["added"] and assist["removed"]
    np.testing.assert_array_equal(read_mask(assisted), before)  # the ghost changes nothing
    assert strokes(assisted) == []
    keys.press("Enter")
    after = read_mask(assisted)
    assert dice(after == LOW, LESION) > 0.9 > dice(before == LOW, LESION)
    np.testing.assert_array_equal(after == HIGH, OTHER)
    (stroke,) = strokes(assisted)
    assert stroke["finding"] == "low" and stroke["tool"] == "assist"
    assert stroke["assist"] == {"engine": "medssl-assist", "version": ENGINE_VERSION, "num_clicks": 2, "num_slices": 0}
    keys.press("z")
    np.testing.assert_array_equal(read_mask(assisted), before)
    keys.press("Shift+Z")
    np.testing.assert_array_equal(read_mask(assisted), after)
    assert strokes(assisted)[-1]["assist"] == stroke["assist"]


def test_escape_drops_the_ghost_and_its_clicks(assisted):
    mark(assisted, (15, 16, 10))
    assisted.page.keyboard.press("Escape")
    assert assisted.viewer("return v.state.assist") is None
    assisted.page.keyboard.press("Enter")
    np.testing.assert_array_equal(read_mask(assisted), make_numbers())
    assert strokes(assisted) == []


def test_the_ghost_is_visible_and_differs_where_it_removes(assisted):
    read = (
        "const p = v.panes.find(p => p.plane === 'axial'); const [x, y] = p.frame.toPixel(a).map(Math.floor);"
        "return [...p.top.getContext('2d').getImageData(x, y, 1, 1).data]"
    )
    assisted.viewer("v.store.set({ crosshairVisible: false })")
    mark(assisted, (15, 16, 10))
    mark(assisted, (12, 25, 10), is_inside=False)
    added, removed, click = (assisted.viewer(read, voxel) for voxel in ([14, 18, 10], [13, 26, 10], [15, 16, 10]))
    assert added[2] > added[0] and added[3] > 60  # blue
    assert removed[0] > removed[2] and removed[3] > 60  # red
    assert click[1] > 200 and click[3] == 255  # green


def test_the_keyboard_alone_marks_inside_and_outside(assisted):
    keys = assisted.page.keyboard
    assisted.viewer("v.store.set({ cursor: [15, 16, 10] })")
    keys.press(".")
    wait_for_proposal(assisted)
    assisted.viewer("v.store.set({ cursor: [12, 25, 10] })")
    keys.press(",")
    wait_for_proposal(assisted)
    assist = assisted.viewer("return v.state.assist")
    assert len(assist["inside"]) == 1 and len(assist["outside"]) == 1 and assist["removed"]


def test_a_request_that_fails_says_why_and_changes_nothing(assisted):
    assisted.page.unroute("**/api/assist/**")
    assisted.page.route("**/api/assist/**", lambda route: route.fulfill(json={"reason": "no image"}, status=400))
    mark(assisted, (15, 16, 10))
    assert "No proposal: no image." in assisted.page.locator(".mv-notice").inner_text()
    assisted.page.keyboard.press("Enter")
    np.testing.assert_array_equal(read_mask(assisted), make_numbers())
    assisted.errors.clear()  # the browser itself reports the status


def test_another_finding_begins_without_clicks(assisted):
    mark(assisted, (15, 16, 10))
    assisted.viewer("v.reading.select('high', false, false)")
    assert assisted.viewer("return v.state.assist") is None


def test_drawn_slices_alone_are_completed_and_recorded(assisted):
    screen, keys = assisted, assisted.page.keyboard
    paint = "e.beginStroke(); for (const n of a) e.setLabel(n, 0); v.reading.finishStroke('erase');"
    leak = np.flatnonzero((LEAK & (np.indices(SHAPE)[2] == 10)).ravel(order="F")).tolist()
    missing = np.flatnonzero((LESION & (np.indices(SHAPE)[2] == 10)).ravel(order="F")).tolist()
    keys.press("b")
    screen.viewer(f"const e = v.state.editor; {paint}", leak)
    screen.viewer(f"const e = v.state.editor; {paint.replace('n, 0', f'n, {LOW}').replace('erase', 'brush')}", missing)
    before = read_mask(screen)
    keys.press("Shift+C")
    wait_for_proposal(screen)
    assert screen.viewer("return v.state.assist.added.length")
    keys.press("Enter")
    after = read_mask(screen)
    np.testing.assert_array_equal(after[:, :, 10], before[:, :, 10])
    assert dice(after == LOW, LESION) > dice(before == LOW, LESION) + 0.1
    tool = strokes(screen)[-1]["assist"]
    assert (tool["num_clicks"], tool["num_slices"]) == (0, 1)
