"""No act is dropped silently, no act overtakes another, and the mask on the screen is the stored one."""

import numpy as np
import pytest

from medssl.volume import Volume

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright (the `test` extra)").expect
pytestmark = pytest.mark.browser

SHAPE, GRID = (24, 20, 12), np.diag([1.0, 1.0, 2.0, 1.0])
CASE = {"signed_at": None, "sign_obstacle": "", "has_next": True, "may_deliver": False, "export_formats": "",
        "download_url": ""}  # fmt: skip
FINDINGS = [{"id": "one", "name": "nodule", "label": 1, "centre_mm": [5, 5, 8], "decision": "accept"}]
STROKE = """const { editor } = v.state; editor.beginStroke(); for (const n of a) editor.setLabel(n, 1);
v.reading.finishStroke('brush')"""


def labels(*offsets):
    flat = np.zeros(np.prod(SHAPE), np.uint8)
    flat[list(offsets)] = 1
    return Volume(flat.reshape(SHAPE, order="F"), GRID, "label")


@pytest.fixture
def acting(screen):
    image = Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), GRID, "HU")
    return screen.open(image, labels(), findings=FINDINGS, editable=True, case=CASE)


def draw(screen, *offsets):
    """Draws a stroke and returns the identity of its event."""
    screen.viewer(STROKE, list(offsets))
    event = screen.list_sent_events()[-1]
    return f"{event['client']}-{event['seq']}"


def list_labelled(screen):
    return screen.viewer("return [...v.state.overlay.data.entries()].filter(([, l]) => l).map(([n]) => n)")


def test_a_signature_waits_behind_the_stroke_and_carries_what_is_on_the_screen(acting):
    page = acting.page
    stroke = draw(acting, 7, 8)
    page.get_by_role("button", name="Sign off").click()
    kinds = [event["kind"] for event in acting.list_sent_events()]
    assert kinds[-2:] == ["stroke", "sign"]
    assert acting.list_sent_events()[-1]["screen"] == {"drawn": [stroke], "decisions": {"one": "accept"}}
    expect(page.get_by_role("button", name="Sign off")).to_be_disabled()
    page.keyboard.press("x")
    assert "verdict" not in [event["kind"] for event in acting.list_sent_events()]


def test_a_case_without_all_verdicts_says_why_it_cannot_be_signed(acting):
    sign = acting.page.get_by_role("button", name="Sign off")
    acting.show(findings=[FINDINGS[0] | {"decision": None}])
    expect(sign).to_have_attribute("title", "1 finding has no verdict")
    acting.show(findings=FINDINGS, case=CASE | {"sign_obstacle": "An admin cannot sign off"})
    expect(sign).to_have_attribute("title", "An admin cannot sign off")
    acting.show(case=CASE | {"signed_at": "2026"}, editable=False)
    expect(sign).to_be_hidden()
    expect(acting.page.get_by_role("button", name="Next case")).to_be_enabled()


def test_a_refused_stroke_stays_with_its_reason_until_the_reader_decides(acting):
    page = acting.page
    stroke = draw(acting, 7, 8)
    acting.show(
        refused={"id": stroke, "reason": "signed on 2026-01-01"}, case=CASE | {"signed_at": "2026"}, editable=False
    )
    expect(page.locator(".mv-refused")).to_contain_text("Not stored: stroke of")
    expect(page.locator(".mv-refused")).to_contain_text("Signed on 2026-01-01.")
    expect(page.locator(".mv-saved")).to_have_text("Not saved 1")
    expect(page.get_by_role("button", name="Next case")).to_be_disabled()
    page.get_by_role("button", name="Reopen").click()
    assert [event["kind"] for event in acting.list_sent_events()][-2:] == ["reopen", "stroke"]
    acting.show()
    acting.show(refused={"id": stroke, "reason": "outside"}, case=CASE, editable=True, acked=[
        f"{e['client']}-{e['seq']}" for e in acting.list_sent_events() if e["kind"] == "reopen"])  # fmt: skip
    page.get_by_role("button", name="Discard it").click()
    expect(page.locator(".mv-saved")).to_have_text("All saved")
    assert list_labelled(acting) == []
    expect(page.locator(".mv-refused")).to_be_hidden()


def test_after_a_restart_the_screen_is_the_record_with_what_waits(acting):
    """The server's links are new and its mask lacks the stroke that waits; then the stroke is stored."""
    first = draw(acting, 7, 8)
    acting.acknowledge(drawn=[first], overlay=acting.serve("overlay", labels(7, 8)))
    expect(acting.page.locator(".mv-saved")).to_have_text("All saved")
    second = draw(acting, 100)
    image = acting.data["volume"].split("/")[3]
    acting.served["restarted"] = acting.served[image]
    acting.show(volume="/api/volume/restarted/header.json", acked=[], session="restarted")
    acting.wait_until_loaded()
    assert list_labelled(acting) == [7, 8, 100]
    expect(acting.page.locator(".mv-saved")).to_have_text("Saving 1")
    acting.acknowledge(drawn=[first, second], overlay=acting.serve("overlay", labels(7, 8, 100)))
    expect(acting.page.locator(".mv-saved")).to_have_text("All saved")
    assert list_labelled(acting) == [7, 8, 100]


def test_a_reload_draws_what_waits_and_undo_still_takes_it_back(acting):
    stroke = draw(acting, 7, 8)
    acting.page.on("dialog", lambda dialog: dialog.accept())
    acting.page.reload()
    acting.page.wait_for_function("window.ready")
    acting.show()
    acting.wait_until_loaded()
    assert list_labelled(acting) == [7, 8]
    acting.page.keyboard.press("z")
    assert list_labelled(acting) == []
    undo = acting.list_sent_events()[-1]
    assert (undo["kind"], f"{undo['of_client']}-{undo['of']}") == ("undo", stroke)


def test_the_mask_follows_what_another_window_stores_and_undo_leaves_it_alone(acting):
    own = draw(acting, 7)
    both = {"drawn": [own, "other-1"], "overlay": acting.serve("overlay", labels(7, 300))}
    acting.acknowledge(**both)
    acting.page.wait_for_function("document.querySelector('.mv').viewer.state.overlay.data[300] === 1")
    expect(acting.page.locator(".mv-saved")).to_have_text("All saved")
    acting.show(undoable=[own, "other-1"])
    acting.page.keyboard.press("z")
    undo = acting.list_sent_events()[-1]
    assert f"{undo['of_client']}-{undo['of']}" == own
    acting.page.keyboard.press("z")
    assert [event["kind"] for event in acting.list_sent_events()].count("undo") == 1
    expect(acting.page.locator(".mv-notice")).to_contain_text("nothing of yours")


def test_a_second_window_is_noticed_and_told_of_a_change(acting):
    acting.page.evaluate(
        "window.heard = []; window.other = new BroadcastChannel('medssl-case');"
        "other.onmessage = ({ data }) => heard.push(data.kind); other.postMessage({ from: 'x', kind: 'hello' })"
    )
    expect(acting.page.get_by_text("Open in another window of yours")).to_be_visible()
    draw(acting, 7)
    acting.acknowledge()
    acting.page.wait_for_function("heard.includes('here') && heard.includes('record')")
    acting.page.evaluate("other.postMessage({ from: 'x', kind: 'bye' })")
    expect(acting.page.get_by_text("Open in another window of yours")).to_be_hidden()


def test_a_link_away_asks_while_something_waits(acting):
    page = acting.page
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<a href=\"#away\">away</a>')")
    draw(acting, 7)
    page.get_by_text("away").click(force=True)
    expect(page.get_by_text("1 change is not saved yet")).to_be_visible()
    page.get_by_role("button", name="Stay until everything is saved").click()
    assert not page.url.endswith("#away")
    page.get_by_text("away").click(force=True)
    page.get_by_role("button", name="Leave now").click()
    assert page.url.endswith("#away")
    acting.acknowledge()
    page.evaluate("location.hash = ''")
    page.get_by_text("away").click(force=True)
    assert page.url.endswith("#away")


def test_reading_counts_as_activity_and_a_pause_keeps_the_view(acting):
    page = acting.page
    acting.show(alive_s=0.3)
    page.mouse.move(*acting.at("axial", (9, 8, 4)))
    page.mouse.wheel(0, -100)
    page.wait_for_function("window.alive > 0")
    page.wait_for_timeout(400)
    before = page.evaluate("window.alive")
    page.wait_for_timeout(900)
    assert page.evaluate("window.alive") == before
    acting.viewer(
        "const line = { plane: 'axial', from: [1, 1, 1], to: [2, 1, 1], text: '1.0 mm' };"
        "v.store.set({ window: { name: 'own', low: 1, high: 77 }, measures: [line] }); v.close()"
    )
    page.evaluate(
        "document.getElementById('host').replaceWith(Object.assign(document.createElement('div'), {id: 'host'}))"
    )
    acting.show()
    acting.wait_until_loaded()
    state = acting.viewer("return [v.state.window.high, v.state.measures[0].text, v.state.cursor]")
    assert state[:2] == [77, "1.0 mm"]
