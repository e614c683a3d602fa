"""What a reader must see without a scroll: the verdicts, the save state, and the chosen finding, large enough."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.volume import Volume

pytestmark = pytest.mark.browser

SHAPE, GRID = (120, 120, 60), np.diag([2.0, 2.0, 3.0, 1.0])
LABELS = {
    "1": {"name": "nodule", "colour": "#ff8000", "visible": True, "window": "lung"},
    "2": {"name": "node", "colour": "#00ff00", "visible": True, "window": "mediastinum"},
}


def scan():
    return Volume(np.zeros(SHAPE, np.int16), GRID, "HU")


def finding(name, label, index):
    centre_mm = [n * mm for n, mm in zip(index, (2, 2, 3), strict=True)]
    return {"id": name, "label": label, "name": LABELS[str(label)]["name"], "centre_mm": centre_mm,
            "diameter_mm": 8.0, "volume_ml": 0.3, "score": 0.9}  # fmt: skip


FINDINGS = [finding("one", 1, (20, 90, 50)), finding("two", 2, (100, 30, 10))]


def test_a_finding_comes_to_the_middle_enlarged_in_the_window_of_its_label(screen):
    screen.open(scan(), labels=LABELS, findings=FINDINGS, editable=True)
    middles = """return v.panes.map(({ frame, top }) => frame.toPixel(v.state.cursor)
        .map((x, a) => Math.abs(x - [top.width, top.height][a] / 2) / frame.step[a]))"""
    wide = "return v.panes[0].top.height / v.panes[0].frame.pixelsPerMm"
    assert np.max(screen.viewer(middles)) < 1 and screen.viewer(wide) == pytest.approx(80)
    assert screen.viewer("return v.state.window.name") == "lung"
    screen.page.keyboard.press("n")
    assert np.max(screen.viewer(middles)) < 1 and screen.viewer("return v.state.window.name") == "mediastinum"
    screen.page.keyboard.press("2")
    screen.page.keyboard.press("p")
    screen.page.keyboard.press("n")
    assert screen.viewer("return v.state.window.name") == "bone"
    screen.show(volume=screen.serve("volume", Volume(np.ones(SHAPE, np.int16), GRID, "HU")), key="case-2")
    screen.wait_until_loaded()
    screen.page.keyboard.press("n")
    assert screen.viewer("return [v.state.selected, v.state.window.name]") == ["two", "bone"]


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (3840, 2160)])
def test_verdicts_and_the_save_state_are_visible_without_a_scroll(screen, size):
    screen.page.set_viewport_size({"width": size[0], "height": size[1]})
    screen.page.goto("http://viewer.test/")
    screen.page.wait_for_function("window.ready")
    screen.page.evaluate("document.body.style.paddingTop = '150px'")  # as high as what the app shows above
    labels = {str(n): {"name": f"label {n}", "colour": "#ff8000", "visible": True} for n in range(1, 41)}
    many = [FINDINGS[n % 2] | {"id": f"f{n}", "label": 1 + n % 40} for n in range(60)]
    screen.open(scan(), labels=labels, findings=many, editable=True, reasons=["vessel"], height=None)
    screen.page.keyboard.press("y")
    for name in (".mv-saved", ".mv-accept", ".mv-reject", ".mv-edit", ".mv-unsure", "text=Add missed", ".mv-value"):
        expect(screen.page.locator(name).first).to_be_in_viewport(ratio=1)
    root = screen.page.locator(".mv").bounding_box()
    assert size[1] - 40 < root["y"] + root["height"] <= size[1]
    assert screen.page.evaluate("document.documentElement.scrollHeight") <= size[1]
    assert screen.page.locator(".mv-list").bounding_box()["height"] >= 64
    assert screen.page.locator(".mv-bar").bounding_box()["height"] < 75


def test_no_text_covers_the_letter_at_the_top_of_a_narrow_pane(screen):
    screen.open(scan(), labels=LABELS, findings=FINDINGS, editable=True)
    screen.viewer("v.store.set({ projection: { kind: 'MinIP', slab_mm: 100 } })")
    written = """const { drawTexts } = await import('/viewer/paneTexts.js');
        return v.panes.map(({ top, frame, plane, index, ratio }) => {
          const boxes = []; const pen = top.getContext('2d');
          const spy = new Proxy(pen, { set: (o, k, x) => { o[k] = x; return true }, get: (o, k) => k === 'fillText'
            ? (text, x, y) => { const w = o.measureText(text).width; const side = { left: 0, center: 0.5, right: 1 };
              boxes.push([text, x - side[o.textAlign] * w, x + (1 - side[o.textAlign]) * w, y / ratio]) }
            : typeof o[k] === 'function' ? o[k].bind(o) : o[k] });
          drawTexts({ pen: spy, state: v.state, header: v.state.volume.header, frame, plane, index, ratio });
          return boxes })"""
    for boxes in screen.viewer(written):
        ((_, left, right, _),) = [box for box in boxes if box[0] in "AS" and box[3] < 30]
        others = [box for box in boxes if box[0] not in "AS" and box[3] < 70]
        assert len(others) > 2 and all(box[2] < left or box[1] > right for box in others), others
