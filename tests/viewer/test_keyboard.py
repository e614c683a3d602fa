"""Without a mouse: every key of the help does something, and Tab reaches everything else, with a visible focus."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.volume import Volume
from tests.viewer.test_reading import FINDINGS, GRID, LABELS, mask, scan

pytestmark = pytest.mark.browser

PRESSED = {"Up": "ArrowUp", "Down": "ArrowDown", "Left": "ArrowLeft", "Right": "ArrowRight", "PgUp": "PageUp",
           "PgDn": "PageDown", "Esc": "Escape", "Shift Z": "Z"}  # fmt: skip
SEEN = """const { state, stage, panes, navigation, labelDialog, help, notice } = v;
    const { volume, overlay, probability, uncertainty, editor, greyTable, colourTable, ...rest } = state;
    return JSON.stringify([rest, stage.dataset, panes.map((pane) => pane === navigation.active), labelDialog.isOpen,
      help.isOpen, notice.node.hidden, window.sent.length])"""
BEGIN = """v.comparison.choose(null); v.navigation.zoomAtCursor(1.1);
    v.store.set({ tool: a, heldDrag: null, label: 2, window: { name: '', low: 0, high: 1 } });"""
FOCUSED = """const node = document.activeElement; node.dataset.reached = 1;
    const { outlineStyle, outlineWidth } = getComputedStyle(node);
    return [node.className, outlineStyle !== 'none' && parseFloat(outlineWidth) > 0]"""
LEFT = """return [...document.querySelectorAll('.mv :is(button, input, select, summary, canvas[tabindex])')]
    .filter(node => node.checkVisibility() && !node.disabled && !node.dataset.reached).map(node => node.outerHTML)"""


@pytest.fixture
def reading(screen):
    """A case with everything that a viewer can show: two labels, confidence, another model to compare with."""
    sure = Volume(np.full((24, 20, 12), 0.5, np.float32), GRID, "probability")
    screen.open(scan(), mask(), sure, labels=LABELS, findings=FINDINGS, editable=True, reasons=["other"])
    rival = {"id": "rival", "name": "rival", "volume": screen.data["volume"], "overlay": screen.serve("r", mask()),
              "pairs": {}, "unmatched": [], "unpaired_text": ""}  # fmt: skip
    screen.show(comparisons=[rival])
    return screen


def test_every_key_that_the_help_names_does_something(reading):
    keys = reading.page.keyboard
    keys.press("?")
    names = reading.page.locator(".mv-help kbd").all_inner_texts()
    names.remove("ENTER")  # keeps a proposal of the assist tool, see test_assistant.py
    keys.press("Escape")
    assert len(names) > 60
    idle = []
    for name in names:
        key = PRESSED.get(name) or (name.replace(" ", "+") if name.startswith("Shift") else name.lower())
        reading.viewer(BEGIN, "navigate" if key == "b" else "brush")
        for ready in {"Z": ".z", "j": "c"}.get(key, "." if key in "zi" else ""):
            keys.press(ready)
            reading.viewer("await new Promise((go) => setTimeout(go, 200))")
        if key == "Escape":
            keys.press("?")
        before = reading.viewer("v.notice.hide();" + SEEN)
        keys.press(key)
        if reading.viewer(SEEN) == before:
            idle.append(name)
        if reading.viewer("return v.labelDialog.isOpen || v.help.isOpen"):
            keys.press("Escape")
    assert idle == []


def test_whatever_can_be_pressed_is_reached_by_tab_and_seen_to_be(reading):
    reading.page.keyboard.press("s")
    reading.viewer("v.display.setThreshold(0.4); v.comparison.cycle()")
    reading.viewer("v.root.querySelectorAll('.mv-menu').forEach((menu) => { menu.open = true })")
    reading.page.keyboard.press("n")
    unseen = []
    for _ in range(140):
        reading.page.keyboard.press("Tab")
        name, outlined = reading.viewer(FOCUSED)
        if not outlined and name not in ("", "mv"):  # the viewer as a whole lights up its frame
            unseen.append(name)
    assert unseen == [] and reading.viewer(LEFT) == []


def test_a_finding_is_given_another_label_with_three_keys(reading):
    keys = reading.page.keyboard
    keys.press("k")
    expect(reading.page.get_by_role("dialog", name="Another label for nodule")).to_be_visible()
    keys.press("y")
    keys.press("Escape")
    assert reading.list_sent_events() == []
    keys.press("k")
    keys.press("ArrowDown")
    keys.press("Enter")
    (event,) = reading.list_distinct_events()
    verdict = {name: event[name] for name in ("kind", "finding", "decision", "label", "next")}
    assert verdict == {"kind": "verdict", "finding": "one", "decision": "relabel", "label": 2, "next": "two"}
    expect(reading.page.locator("[data-finding=one]")).to_contain_text("relabelled: node")
    keys.press("k")
    keys.press("1")
    assert (reading.list_sent_events()[-1]["finding"], reading.list_sent_events()[-1]["label"]) == ("two", 2)


def test_a_label_beyond_the_ninth_is_found_by_its_first_letter(reading):
    labels = {str(n): {"name": f"organ {n}", "colour": "#ffffff", "visible": True} for n in range(3, 30)}
    reading.show(
        labels=reading.data["labels"] | labels | {"30": {"name": "Vein", "colour": "#ffffff", "visible": True}}
    )
    for key in ("k", "v", "Enter"):
        reading.page.keyboard.press(key)
    (event,) = reading.list_distinct_events()
    assert (event["decision"], event["label"]) == ("relabel", 30)
    reading.page.keyboard.press("k")
    assert reading.page.locator("dialog kbd").all_inner_texts()[8:11] == ["9", "", ""]


def test_a_label_that_the_server_stored_stays_on_the_card_and_a_single_label_has_no_other(reading):
    reading.show(findings=[FINDINGS[0] | {"decision": "relabel", "relabelled": 2}, *FINDINGS[1:]])
    expect(reading.page.locator("[data-finding=one]")).to_contain_text("relabelled: node")
    reading.show(labels={"1": LABELS["1"]})
    expect(reading.page.get_by_role("button", name="Another label")).to_be_hidden()
    reading.page.keyboard.press("k")
    expect(reading.page.locator(".mv-notice")).to_have_text("There is no other label.")


def test_what_a_mouse_draws_and_measures_the_keys_do_at_the_crosshair(reading):
    keys = reading.page.keyboard
    reading.viewer("v.store.set({ cursor: [3, 5, 2], radius_mm: 0.5 })")
    keys.press("b")
    keys.press(".")
    assert [event["runs"] for event in reading.list_distinct_events()] == [[[3 + 24 * (5 + 20 * 2), 1, 1]]]
    keys.press("m")
    keys.press(".")
    reading.viewer("v.store.set({ cursor: [6, 9, 4] })")  # the second end stays in the plane of the first
    keys.press(".")
    assert reading.viewer("return v.state.measures.map(({ text }) => text)") == ["5.0 mm"]
    keys.press(".")
    keys.press("g")
    assert reading.viewer("return v.state.measures.length") == 1
    keys.press("r")
    for cursor in ([3, 5, 2], [3, 15, 2], [1, 9, 2], [7, 9, 2]):
        reading.viewer("v.store.set({ cursor: a })", cursor)
        keys.press(".")
    event = reading.list_sent_events()[-1]
    assert event["kind"] == "measure" and event["long"] == [[3, 5, 4], [3, 15, 4]]


def test_the_arrows_push_window_and_image_and_turn_the_body(reading):
    keys = reading.page.keyboard
    low, high = reading.viewer("return [v.state.window.low, v.state.window.high]")
    keys.press("w")
    keys.press("ArrowRight")
    assert reading.viewer("return v.state.window.high - v.state.window.low") > high - low
    keys.press("v")
    keys.press("ArrowLeft")
    assert reading.viewer("return v.navigation.active.view.pan[0]") < 0
    keys.press("s")
    expect(reading.page.locator(".mv-mesh canvas")).to_be_visible()
    reading.viewer("v.meshView.canvas.focus({ focusVisible: true })")
    keys.press("ArrowLeft")
    keys.press("+")
    assert reading.viewer("return [v.meshView.yaw, v.meshView.zoom, v.navigation.active.view.pan[1]]") == [
        -0.2,
        1.25,
        0,
    ]


def test_a_slider_takes_the_arrows_when_it_was_tabbed_to_and_leaves_them_alone_after_a_click(reading):
    keys, slider = reading.page.keyboard, reading.page.get_by_label("Opacity")
    slider.click()
    before = reading.viewer("return [v.state.opacity, v.state.cursor[2]]")
    keys.press("ArrowUp")
    assert reading.viewer("return [v.state.opacity, v.state.cursor[2]]") == [before[0], before[1] + 1]
    keys.press("Tab")
    keys.press("Shift+Tab")
    keys.press("ArrowUp")
    assert reading.viewer("return [v.state.opacity, v.state.cursor[2]]") == [before[0] + 0.05, before[1] + 1]
