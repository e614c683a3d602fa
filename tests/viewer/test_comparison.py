"""Another study next to this one scrolls along in millimetres, at the same scale and the same place of the screen."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.volume import Volume

pytestmark = pytest.mark.browser

CURRENT, EARLIER = np.diag([1.0, 1.0, 2.0, 1.0]), np.diag([1.5, 1.5, 3.0, 1.0])
EARLIER[:3, 3] = 4, -2, 6
FINDINGS = [{"id": name, "label": 1, "name": "nodule", "centre_mm": [5.0, 6.0, z], "diameter_mm": 6.0, "volume_ml": 0.1,
             "score": 0.9} for name, z in (("one", 8.0), ("two", 16.0))]  # fmt: skip


def ramp(shape, affine):
    """Values that grow upwards by 10 per mm."""
    z = affine[2, 2] * np.arange(shape[2]) + affine[2, 3]
    return Volume(np.broadcast_to(np.rint(10 * z), shape).astype(np.int16), affine, "HU")


def empty(volume):
    return Volume(np.zeros(volume.shape, np.uint8), volume.affine, "label")


@pytest.fixture
def pair(screen):
    """A study with an earlier study, in which the first finding is 3 mm further up, and with another model."""
    current, earlier = ramp((24, 20, 12), CURRENT), ramp((20, 18, 10), EARLIER)
    prior = {"id": "prior", "name": "Prior 2024-03-02", "volume": screen.serve("earlier", earlier),
             "unpaired_text": "new", "overlay": screen.serve("earlier-labels", empty(earlier)),
             "unmatched": [{"text": "gone: nodule", "centre_mm": [10, 4, 24]}],
             "pairs": {"one": {"centre_mm": [5, 6, 11], "text": "+38 % volume in 183 days"}}}  # fmt: skip
    screen.open(current, empty(current), findings=FINDINGS, comparisons=[prior], name="This study")
    current_mask = np.zeros(current.shape, np.uint8)
    current_mask[5, 6, 4] = 1
    rival = {"id": "rival", "name": "Model b", "volume": screen.data["volume"], "pairs": {},
             "unpaired_text": "not seen by b",
             "overlay": screen.serve("seen", Volume(current_mask, CURRENT, "label")), "unmatched": []}  # fmt: skip
    screen.show(comparisons=[prior, rival])
    return screen


def evaluate(pair, expression):
    """Returns the value of JavaScript in which `b` is the comparison, once it is loaded."""
    pair.page.wait_for_function(
        "() => { const { store, panes } = document.querySelector('.mv').viewer.comparison;"
        " const { volume } = store.get(); return volume?.isComplete && panes[0].frame }"
    )
    pair.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return pair.viewer(f"const b = v.comparison; return {expression}")


def test_the_place_is_the_same_in_millimetres_and_on_the_screen(pair):
    pair.page.keyboard.press("n")
    pair.page.keyboard.press("c")
    assert evaluate(pair, "b.offset_mm") == [0, 0, 0]  # the second finding is not in the prior
    pair.viewer("v.store.set({ cursor: [9, 8, 9] })")
    assert evaluate(pair, "b.store.get().cursor") == [3, 7, 4]  # 9, 8, 18 mm
    assert evaluate(pair, "b.panes[0].frame.pixelsPerMm") == pytest.approx(
        evaluate(pair, "v.panes[0].frame.pixelsPerMm")
    )
    pixel, compared = evaluate(pair, "[v.panes[0].frame.toPixel([9, 8, 9]), b.panes[0].frame.toPixel(b.position)]")
    assert pixel == pytest.approx(compared)
    pair.page.mouse.move(*pair.at("axial", (9, 8, 9)))
    pair.page.mouse.wheel(0, -100)
    assert evaluate(pair, "b.position[2]") == pytest.approx((20 - 6) / 3)
    pair.page.keyboard.press("c")
    pair.page.keyboard.press("c")
    pair.viewer("")
    assert pair.viewer("return [v.comparison.entry, v.stage.classList.contains('mv-two')]") == [None, False]


def test_a_finding_overlays_its_prior_and_states_its_growth(pair):
    card = pair.page.locator("[data-finding=one]")
    expect(card).to_contain_text("+38 % volume in 183 days")
    expect(pair.page.locator("[data-finding=two]")).to_contain_text("new")
    pair.page.keyboard.press("c")
    assert evaluate(pair, "b.offset_mm") == [0, 0, 3]
    assert evaluate(pair, "b.position[2]") == pytest.approx((11 - 6) / 3)
    expect(pair.page.locator(".mv-caption").last).to_contain_text("Prior 2024-03-02")
    pair.page.get_by_text("gone: nodule").click()
    assert evaluate(pair, "[b.store.get().cursor, v.state.cursor]") == [[4, 4, 6], [10, 4, 11]]


def test_each_side_scrolls_alone_until_they_are_linked_again(pair):
    pair.page.keyboard.press("c")
    evaluate(pair, "1")
    pair.page.keyboard.press("j")
    before = evaluate(pair, "v.state.cursor")
    pair.viewer("v.navigation.scroll(v.comparison.panes[0], 2)")
    assert evaluate(pair, "[b.store.get().cursor[2], v.state.cursor]") == [4, before]
    expect(pair.page.locator(".mv-caption").last).to_contain_text("not linked")
    pair.page.keyboard.press("j")
    assert evaluate(pair, "b.offset_mm[2]") == pytest.approx(6 + 4 * 3 - 8)
    pair.viewer("v.navigation.scroll(v.panes[0], 3)")
    assert evaluate(pair, "b.position[2]") == pytest.approx(6)


def test_another_model_shares_the_voxels_and_nothing_is_drawn_on_its_side(pair):
    pair.viewer("v.store.set({ cursor: [5, 6, 4] })")
    before = len([url for url in pair.requested if "/volume-" in url])
    pair.viewer("return v.comparison.choose('rival')")
    assert evaluate(pair, "b.store.get().volume === v.state.volume") and evaluate(pair, "b.panes[0].labelled")
    assert len([url for url in pair.requested if "/volume-" in url]) == before
    expect(pair.page.locator("[data-finding=two]")).to_contain_text("not seen by b")
    pair.show(editable=True)
    pair.page.keyboard.press("b")
    pair.viewer(
        "const t = v.comparison.panes[0].top.getBoundingClientRect();"
        "v.spot = [t.left + t.width / 2, t.top + t.height / 2]"
    )
    pair.page.mouse.click(*pair.viewer("return v.spot"))
    expect(pair.page.locator(".mv-notice")).to_contain_text("read-only")
    assert pair.list_sent_events() == []
