"""A list of a hundred findings: sorted, filtered, grouped, and accepted by label after a question."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.volume import Volume
from tests.viewer.test_findings import GRID, LABELS, finding

pytestmark = pytest.mark.browser

NUM_FINDINGS = 100


def make_findings():
    rng = np.random.default_rng(2)
    return [
        finding(f"f{n}", None, int(rng.integers(1, 30)), label=1 + n % 2, volume_ml=float(rng.uniform(0.1, 5)),
                score=float(rng.uniform()))
        for n in range(NUM_FINDINGS)
    ]  # fmt: skip


@pytest.fixture
def reading(screen):
    scan = Volume(np.zeros((30, 24, 40), np.int16), GRID, "HU")
    return screen.open(scan, labels=LABELS, findings=make_findings(), editable=True)


def list_cards(screen):
    return screen.page.locator(".mv-card").evaluate_all("cards => cards.map((card) => card.dataset.finding)")


def test_the_list_is_sorted_and_filtered_and_the_keys_follow_it(reading):
    assert list_cards(reading) == [f"f{n}" for n in range(NUM_FINDINGS)]
    reading.page.get_by_label("Order of the findings").select_option("size")
    reading.page.get_by_label("Label of the findings").select_option("2")
    fitting = [entry for entry in make_findings() if entry["label"] == 2]
    expected = [entry["id"] for entry in sorted(fitting, key=lambda entry: -entry["volume_ml"])]
    reading.viewer("")
    assert list_cards(reading) == expected
    visited = []
    for _ in range(3):
        reading.page.keyboard.press("n")
        visited.append(reading.viewer("return v.state.selected"))
    assert visited == expected[:3]
    reading.page.keyboard.press("y")
    assert reading.viewer("return v.state.selected") == expected[3]


def test_all_findings_of_a_label_are_accepted_after_a_question(reading):
    reading.page.get_by_role("button", name="Group").click()
    groups = reading.page.locator(".mv-grouped")
    expect(groups).to_have_count(2)
    expect(groups.nth(1)).to_contain_text("node  0 of 50 read")
    reading.page.keyboard.press("n")
    reading.page.keyboard.press("x")
    groups.nth(0).get_by_role("button", name="Accept all").click()
    reading.page.get_by_role("button", name="Accept none").click()
    assert len(reading.list_distinct_events()) == 1
    groups.nth(0).get_by_role("button", name="Accept all").click()
    reading.page.get_by_role("button", name="Accept 49").click()
    expect(groups.nth(0)).to_contain_text("nodule  50 of 50 read")
    expect(groups.nth(1)).to_contain_text("node  0 of 50 read")
    events = reading.list_distinct_events()
    assert [event["seq"] for event in events] == list(range(1, 51))
    assert {event["decision"] for event in events[1:]} == {"accept"}
    reading.page.keyboard.press("z")
    expect(groups.nth(0)).to_contain_text("nodule  49 of 50 read")
