"""Reading with the keyboard and the mouse: verdicts arrive in order, and no event is stored twice."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.volume import Volume

pytestmark = pytest.mark.browser

GRID = np.diag([1.0, 1.0, 2.0, 1.0])


def scan(shape=(24, 20, 12), seed=3):
    return Volume(np.random.default_rng(seed).integers(-1000, 500, shape).astype(np.int16), GRID, "HU")


def mask(shape=(24, 20, 12)):
    voxels = np.zeros(shape, np.uint8)
    voxels[4:8, 4:8, 3:6] = 1
    voxels[14:18, 10:14, 7:10] = 2
    return Volume(voxels, GRID, "label")


def finding(number, centre_mm, **facts):
    return {"id": number, "case": "c", "label": 1, "name": "nodule", "centre_mm": centre_mm, "volume_ml": 0.1,
            "diameter_mm": 6.0, "score": 0.9} | facts  # fmt: skip


FINDINGS = [finding("one", [5, 5, 8]), finding("two", [15, 11, 16]), finding("three", [20, 3, 4])]
LABELS = {
    "1": {"name": "nodule", "colour": "#ff8000", "visible": True},
    "2": {"name": "node", "colour": "#00ff00", "visible": True},
}


@pytest.fixture
def reading(screen):
    """A case with three findings, opened."""
    return screen.open(scan(), mask(), labels=LABELS, findings=FINDINGS, editable=True)


def test_in_a_signed_case_no_button_and_no_key_decides(reading):
    reading.show(editable=False)
    for name in ("Accept", "Reject", "Edit", "Unsure", "Add missed"):
        expect(reading.page.get_by_role("button", name=name)).to_be_disabled()
    expect(reading.page.locator(".mv-closed")).to_be_visible()
    reading.show(findings=[finding | {"decision": "accept"} for finding in FINDINGS])
    expect(reading.page.locator(".mv-done")).to_have_count(0)
    for key in "yxeuaz":
        reading.page.keyboard.press(key)
    assert reading.list_sent_events() == []
    expect(reading.page.locator(".mv-notice")).to_contain_text("closed to changes")


def test_the_case_opens_on_the_first_finding_and_keys_lead_on(reading):
    keys = reading.page.keyboard
    assert reading.viewer("return [v.state.selected, v.state.cursor]") == ["one", [5, 5, 4]]
    keys.press("n")
    assert reading.viewer("return [v.state.selected, v.state.cursor]") == ["two", [15, 11, 8]]
    keys.press("p")
    keys.press("p")
    assert reading.viewer("return v.state.selected") == "three"


@pytest.mark.parametrize(("key", "decision"), [("y", "accept"), ("x", "reject"), ("u", "unsure"), ("e", "edit")])
def test_a_key_decides(reading, key, decision):
    reading.page.keyboard.press(key)
    (event,) = reading.list_distinct_events()
    assert set(event) == {"client", "seq", "at", "kind", "finding", "decision", "reason", "note", "dwell_ms", "next"}
    assert [event[name] for name in ("seq", "kind", "finding", "decision")] == [1, "verdict", "one", decision]
    assert reading.viewer("return v.state.selected") == event["next"] == ("one" if decision == "edit" else "two")


def test_a_verdict_is_announced_once_and_a_finding_only_when_the_reader_goes_there(reading):
    """Each event costs the server a run of the page."""
    reading.show(handled_events=[*reading.data["handled_events"], "select"])
    for key in "npy":
        reading.page.keyboard.press(key)
    reading.page.wait_for_timeout(600)
    assert [(e["seq"], e["kind"], e["next"]) for e in reading.list_distinct_events()] == [(1, "verdict", "two")]
    reading.acknowledge(selected="two")
    reading.page.keyboard.press("n")
    reading.page.wait_for_function("window.sent.some(event => event.seq > 1)")
    assert [(e["seq"], e["kind"], e["finding"]) for e in reading.list_distinct_events()[1:]] == [(2, "select", "three")]


def test_the_planes_are_drawn_only_when_something_on_them_changes(reading):
    reading.viewer("v.drawn = 0; const draw = v.drawPlanes; v.drawPlanes = () => { v.drawn++; draw.call(v) }")
    decided = [finding | {"decision": "accept"} for finding in FINDINGS]
    reading.show(findings=decided)
    reading.page.keyboard.press("y")
    assert reading.viewer("v.navigation.hover(v.panes[0], [3, 3, 3])") is None
    assert reading.viewer("return v.drawn") == 0
    expect(reading.page.locator(".mv-count")).to_have_text("3 of 3 read")
    measured = [
        decided[0] | {"axes": {"plane": "axial", "long": [[0, 0, 8], [9, 0, 8]], "short": [[4, 0, 8], [4, 3, 8]]}}
    ]
    looks = LABELS | {"1": LABELS["1"] | {"colour": "#ffffff"}}
    for facts in ({"findings": measured}, {"labels": looks}):
        reading.show(**facts)
        reading.viewer("")
        assert reading.viewer("return [v.drawn, v.drawn = 0][0]") == 1


def test_a_note_goes_with_the_next_verdict_and_its_letters_are_no_commands(reading):
    reading.page.get_by_placeholder("Note").fill("")
    reading.page.get_by_placeholder("Note").press_sequentially("yes, <b>x</b>")
    assert reading.list_sent_events() == []
    reading.page.locator("button.mv-reject").click()
    (event,) = reading.list_distinct_events()
    assert event["note"] == "yes, <b>x</b>" and event["decision"] == "reject"


def test_a_reason_goes_with_one_verdict_only(reading):
    assert not reading.page.get_by_label("Reason").is_visible()
    reading.show(reasons=["vessel", "artefact"])
    reading.page.get_by_label("Reason").select_option("vessel")
    for _ in range(2):
        reading.page.locator("button.mv-reject").click()
    assert {event["seq"]: event["reason"] for event in reading.list_sent_events()} == {1: "vessel", 2: ""}


def test_what_is_not_acknowledged_is_sent_again_and_survives_a_reload(reading):
    page = reading.page
    page.keyboard.press("y")
    page.keyboard.press("x")
    assert [e["seq"] for e in reading.list_sent_events()] == [1, 1, 2]
    expect(page.locator(".mv-saved")).to_have_text("Saving 2")
    page.wait_for_function("window.sent.length > 4", timeout=6000)
    assert [e["seq"] for e in reading.list_sent_events()][-2:] == [1, 2]
    client = reading.list_sent_events()[0]["client"]
    warned = []
    page.on("dialog", lambda dialog: (warned.append(dialog.type), dialog.accept()))
    page.reload()
    assert warned == ["beforeunload"]
    page.wait_for_function("window.ready")
    reading.show()
    reading.wait_until_loaded()
    assert [(e["client"], e["seq"]) for e in reading.list_sent_events()][:2] == [(client, 1), (client, 2)]
    assert page.locator("em[data-decision=accept], em[data-decision=reject]").count() == 2
    reading.acknowledge(
        findings=[FINDINGS[0] | {"decision": "accept"}, FINDINGS[1] | {"decision": "reject"}, FINDINGS[2]]
    )
    expect(page.locator(".mv-saved")).to_have_text("All saved")
    page.keyboard.press("u")
    assert reading.list_sent_events()[-1]["seq"] == 1 and reading.list_sent_events()[-1]["client"] != client
    for finding, target in ((None, 1), ("two", 2), ("one", 1)):
        page.keyboard.press("z")
        undo = reading.list_sent_events()[-1]
        assert (undo["kind"], undo["of"]) == ("undo", target) and (not finding or undo["finding"] == finding)
    assert undo["of_client"] == client


def test_another_version_of_the_viewer_takes_the_place_and_the_outbox_of_the_one_before(reading):
    reading.page.keyboard.press("y")
    reading.frontends["newer"] = reading.frontends["viewer"]
    reading.page.evaluate(
        "async data => { const { default: mount } = await import('/newer/viewer.js'); window.sent = [];"
        " const parentElement = document.getElementById('host');"
        " const setTriggerValue = (name, value) => name === 'events' && window.sent.push(...value);"
        " mount({ data, parentElement, setTriggerValue }) }",
        reading.data,
    )
    reading.wait_until_loaded()
    assert reading.page.locator(".mv").count() == 1
    assert [(event["seq"], event["decision"]) for event in reading.list_sent_events()] == [(1, "accept")]


def test_a_verdict_is_taken_back(reading):
    reading.page.keyboard.press("y")
    reading.page.keyboard.press("z")
    assert [(e["kind"], e.get("of")) for e in reading.list_sent_events()][-1] == ("undo", 1)
    assert reading.viewer("return [v.state.selected, v.state.pendingVerdicts.one.decision]") == ["one", None]


def test_the_server_does_not_pull_the_reader_back(reading):
    reading.page.keyboard.press("y")
    reading.page.keyboard.press("n")
    reading.show(selected="two")
    assert reading.viewer("return v.state.selected") == "three"
    reading.acknowledge(1, selected="one")
    assert reading.viewer("return v.state.selected") == "one"


def test_a_missed_finding_is_added_at_the_crosshair(reading):
    reading.viewer("v.store.set({ cursor: [2, 3, 6] })")
    reading.page.keyboard.press("a")
    (event,) = reading.list_distinct_events()
    assert event["kind"] == "missed" and event["centre_mm"] == [2, 3, 12]


def test_value_and_place_under_the_pointer(reading):
    volume = scan()
    reading.page.mouse.move(*reading.at("axial", (9, 8, 4)))
    reading.viewer("")
    assert reading.page.locator(".mv-value").inner_text() == f"{volume.voxels[9, 8, 4]} HU"
    assert reading.page.locator(".mv-place").inner_text() == "R 9.0  A 8.0  S 8.0 mm    voxel 9 8 4"


def test_presets_wheel_drag_and_length(reading):
    page = reading.page
    page.keyboard.press("3")
    assert reading.viewer("return v.state.window") == {"name": "soft tissue", "low": -160, "high": 240}
    page.mouse.move(*reading.at("axial", (9, 8, 4)))
    page.mouse.wheel(0, -100)
    assert reading.viewer("return v.state.cursor[2]") == 5
    reading.drag("axial", (9, 8, 5), (12, 12, 5), button="right")
    window = reading.viewer("return v.state.window")
    assert window["name"] == "own" and window["high"] - window["low"] < 400
    page.keyboard.press("m")
    reading.drag("axial", (3, 4, 5), (6, 8, 5))
    assert reading.viewer("return v.state.measures[0].text") == "5.0 mm"
    reading.drag("coronal", (3, 5, 2), (3, 5, 7))
    assert reading.viewer("return v.state.measures[1].text") == "10.0 mm"


def test_long_and_short_axis_are_measured_at_a_right_angle_and_stored_with_the_finding(reading):
    reading.show(editable=False)
    assert reading.page.get_by_role("button", name="RECIST").is_hidden()
    reading.show(editable=True)
    reading.page.keyboard.press("r")
    reading.viewer("")  # waits for the layout with the tools
    reading.drag("coronal", (3, 5, 2), (3, 5, 7))
    assert reading.list_sent_events() == []
    reading.drag("coronal", (1, 5, 3), (9, 5, 6))
    event = reading.list_sent_events()[-1]
    assert (event["kind"], event["finding"], event["plane"]) == ("measure", "one", "coronal")
    (a, b), (c, d) = np.array(event["long"]), np.array(event["short"])
    assert np.linalg.norm(b - a) == pytest.approx(10, abs=0.1) and abs((b - a) @ (d - c)) < 1e-9
    assert np.linalg.norm(d - c) == pytest.approx(8, abs=0.1) and c[2] == pytest.approx(6, abs=0.1)
    card = reading.page.locator("[data-finding=one]")
    expect(card).to_contain_text("RECIST 10.0 x 8.0 mm")
    axes = {name: event[name] for name in ("plane", "long", "short")}
    reading.acknowledge(findings=[FINDINGS[0] | {"axes": axes}, *FINDINGS[1:]])
    expect(card).to_contain_text("RECIST 10.0 x 8.0 mm")
    reading.page.keyboard.press("z")
    assert reading.list_sent_events()[-1]["of"] == event["seq"]
    expect(card).not_to_contain_text("RECIST")


def test_the_overlay_lies_on_its_voxels_and_is_turned_off_by_label(reading):
    reading.viewer(
        "v.store.set({ opacity: 1, window: { name: 'own', low: 5000, high: 6000 }, crosshairVisible: false })"
    )
    labels = mask().voxels
    indices = [(i, j, 4) for i in range(24) for j in range(20)]
    expected = [[[0, 0, 0], [255, 128, 0], [0, 255, 0]][labels[index]] for index in indices]
    assert reading.colours("axial", indices) == expected
    reading.page.get_by_label("Show nodule").uncheck()
    assert {tuple(c) for c in reading.colours("axial", indices)} == {(0, 0, 0)}


def test_the_confidence_threshold_works_in_the_browser(screen):
    sure = np.zeros((24, 20, 12), np.float32)
    sure[4:8, 4:8, 3:6] = 0.6
    sure[5, 5, 4] = 0.9
    screen.open(scan(), mask(), Volume(sure, GRID, "probability"), labels=LABELS, findings=FINDINGS)
    before = len(screen.requested)
    screen.viewer(
        "v.display.setThreshold(0.8);v.store.set({ opacity: 1, window: { name: 'own', low: 5000, high: 6000 } })"
    )
    assert screen.colours("axial", [(5, 5, 4), (6, 6, 4)]) == [[255, 128, 0], [0, 0, 0]]
    assert "not as stored" in screen.page.locator(".mv-badges").inner_text()
    screen.viewer("v.display.setThreshold(null)")
    assert screen.colours("axial", [(6, 6, 4)]) == [[255, 128, 0]]
    assert len(screen.requested) == before


def test_uncertainty_is_shown_as_stored_or_derived_from_the_confidence(screen):
    uncertainty = np.zeros((24, 20, 12), np.float32)
    uncertainty[5, 5, 4], uncertainty[6, 6, 4] = 1.0, 0.5
    volume = Volume(uncertainty, GRID, "probability")
    places = [(5, 5, 4), (6, 6, 4), (20, 15, 4)]
    badges, legend = screen.page.locator(".mv-badges"), screen.page.locator(".mv-legend")

    def measure_colours(**images):
        screen.open(scan(), mask(), **images, labels=LABELS, findings=FINDINGS)
        screen.viewer("v.store.set({ overlayVisible: false, crosshairVisible: false, cursor: [5, 5, 4] })")
        screen.viewer("v.store.set({ window: { name: 'own', low: 5000, high: 6000 } })")
        return [sum(colour) for colour in screen.colours("axial", places)]

    assert measure_colours(uncertainty=volume) == [0, 0, 0]
    screen.page.keyboard.press("q")
    screen.viewer("")
    stored = [sum(colour) for colour in screen.colours("axial", places)]
    assert stored[0] > stored[1] > stored[2] == 0
    expect(badges).to_contain_text("as the model stored it")
    screen.show(uncertainty_source="disagreement of runs")
    expect(badges).to_contain_text("disagreement of runs")
    expect(legend).to_be_visible()
    derived = measure_colours(probability=volume)
    assert derived[0] == derived[2] == 0 and derived[1] == pytest.approx(stored[0], abs=2)
    expect(badges).to_contain_text("4p(1-p)")
    screen.page.keyboard.press("q")
    expect(legend).to_be_hidden()


def test_the_mask_as_a_body_shows_the_left_on_the_right_and_turns(reading):
    colours = """const { canvas } = v.meshView; const at = {};
        const rgba = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        for (let n = 0; n < rgba.length; n += 4) {
          const name = rgba[n + 2] === 0 ? (rgba[n] ? "first" : "second") : null;
          if (name) (at[name] ??= []).push([(n / 4) % canvas.width, Math.floor(n / 4 / canvas.width)]);
        }
        const mean = (list) => [0, 1].map((a) => list.reduce((sum, xy) => sum + xy[a], 0) / list.length);
        return { first: mean(at.first), second: mean(at.second) }"""
    reading.page.keyboard.press("s")
    reading.viewer("")
    positions = reading.viewer(colours)  # the second is further right, anterior and superior
    assert positions["second"][0] < positions["first"][0] and positions["second"][1] < positions["first"][1]
    reading.viewer("v.meshView.turn(Math.PI, 0)")
    behind = reading.viewer(colours)
    assert behind["second"][0] > behind["first"][0] and behind["second"][1] < behind["first"][1]
    reading.page.get_by_label("Close the 3D view").click()
    expect(reading.page.locator(".mv-mesh")).to_be_hidden()


def test_scrolling_asks_for_nothing_and_a_new_address_of_the_same_scan_keeps_its_voxels(reading):
    before = len(reading.requested)
    for _ in range(5):
        reading.page.keyboard.press("ArrowUp")
    assert len(reading.requested) == before
    reading.served["again"] = reading.served[reading.data["volume"].split("/")[3]]
    reading.viewer("v.store.set({ cursor: [1, 2, 3] })")
    reading.show(volume="/api/volume/again/header.json")
    reading.wait_until_loaded()
    assert reading.viewer("return v.state.cursor") == [1, 2, 3]
    assert not [url for url in reading.requested[before:] if "voxels" in url]


def test_names_are_text_and_never_markup(screen):
    bad = "<img src=x onerror=document.title='broken'>"
    screen.open(
        scan(),
        mask(),
        labels={"1": {"name": bad, "colour": "#f00", "visible": True}},
        findings=[finding("one", [5, 5, 8], name=bad)],
    )
    assert screen.page.locator(".mv-title").inner_text().startswith("1")
    assert screen.page.locator(".mv img").count() == 0 and screen.page.title() == ""


def test_an_expired_link_and_an_empty_case_state_what_to_do(screen):
    screen.open(scan())
    expect(screen.page.locator(".mv-empty")).to_contain_text("The model found nothing")
    screen.show(volume="/api/volume/gone/header.json")
    expect(screen.page.locator(".mv-loading")).to_contain_text("Reload the page")
    screen.page.keyboard.press("n")
    expect(screen.page.locator(".mv-notice")).to_contain_text("this key did nothing")
    screen.errors.clear()  # the browser itself reports the 404


def test_the_help_page_names_every_key_once(reading):
    reading.page.keyboard.press("Shift+?")
    keys = reading.page.locator(".mv-help kbd").all_inner_texts()
    assert len(keys) == len(set(keys)) and {"N", "Y", "X", "Z", "?"} <= set(keys)
    reading.page.keyboard.press("Escape")
    assert reading.page.locator(".mv-help").count() == 0
