"""Several sequences of one case: side by side and in place of each other, each in its own window, with one mask."""

import numpy as np
import pytest

from medssl.render.windows import Window
from medssl.volume import Volume

pytestmark = pytest.mark.browser

SHAPE, GRID = (24, 20, 12), np.diag([1.0, 1.0, 2.0, 1.0])
LABELS = {"1": {"name": "tumour", "colour": "#ff8000", "visible": True}}


def make_sequence(seed):
    return Volume(np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16), GRID, "a.u.")


@pytest.fixture
def case(screen):
    labels = Volume(np.zeros(SHAPE, np.uint8), GRID, "label")
    screen.open(make_sequence(0), labels, labels=LABELS, editable=True)
    sequences = [
        {"id": f"sequence-{n}", "name": f"Sequence {n + 1}", "isSequence": True, "overlay": None, "pairs": {},
         "volume": screen.serve(f"sequence-{n}", make_sequence(n)), "unpaired_text": "", "unmatched": []}
        for n in (1, 2)
    ]  # fmt: skip
    screen.show(comparisons=sequences)
    screen.viewer("v.store.set({ crosshairVisible: false, opacity: 1 })")
    return screen


def wait_for_sequence(screen, name):
    screen.page.wait_for_function(
        "name => { const { comparison, state } = document.querySelector('.mv').viewer;"
        " return comparison.entry?.name === name && comparison.store.get().volume?.isComplete"
        " && (!state.comparisonLayered || state.layer?.volume.isComplete) }",
        arg=name,
    )


def read_colours(screen, panes, indices):
    return screen.viewer(
        f"const {{ frame, base }} = {panes}[0]; const pen = base.getContext('2d');"
        "const read = (index) => pen.getImageData(...frame.toPixel(index).map(Math.floor), 1, 1).data;"
        "return a.map((index) => [...read(index)].slice(0, 3))",
        indices,
    )


def expect_grey(volume, window, indices):
    grey = Window(window["low"], window["high"]).to_grey(volume.voxels)
    return [[int(grey[tuple(index)])] * 3 for index in indices]


def test_sequences_take_the_place_of_the_image_and_keep_their_windows(case):
    indices = [[i, j, 6] for i in range(2, 22, 5) for j in range(2, 18, 5)]
    own = case.viewer("return v.state.window")
    for number, name in ((1, "Sequence 2"), (2, "Sequence 3")):
        case.page.keyboard.press("Shift+Q")
        wait_for_sequence(case, name)
        window = case.viewer("return v.comparison.window")
        assert read_colours(case, "v.panes", indices) == expect_grey(make_sequence(number), window, indices)
        assert case.page.locator(".mv-stage.mv-two").count() == 0
    case.drag("axial", (4, 4, 6), (9, 4, 6), button="right")
    changed = case.viewer("return v.comparison.window")
    assert changed["name"] == "own" and case.viewer("return v.state.window") == own
    case.page.keyboard.press("Shift+Q")
    assert read_colours(case, "v.panes", indices) == expect_grey(make_sequence(0), own, indices)
    for name in ("Sequence 2", "Sequence 3"):
        case.page.keyboard.press("Shift+Q")
        wait_for_sequence(case, name)
    assert case.viewer("return v.comparison.window") == changed


def test_a_sequence_beside_the_image_shows_each_stroke_and_scrolls_along(case):
    case.page.keyboard.press("c")
    wait_for_sequence(case, "Sequence 2")
    case.viewer("v.store.set({ tool: 'brush', radius_mm: 2, cursor: [12, 10, 7] })")
    case.drag("axial", (12, 10, 7), (12, 10, 7))
    inside, outside = [12, 10, 7], [20, 16, 7]
    window = case.viewer("return v.comparison.window")
    (orange, grey) = read_colours(case, "v.comparison.panes", [inside, outside])
    assert orange == [255, 128, 0] and [grey] == expect_grey(make_sequence(1), window, [outside])
    assert len(case.list_distinct_events()) == 1


def test_a_pet_lies_on_the_image_in_a_hot_scale(case):
    hot = np.zeros(SHAPE, np.int16)
    hot[4:10] = 500
    hot[10:16] = 1000
    entry = {"id": "pet", "name": "PT", "isSequence": True, "isHot": True, "overlay": None, "pairs": {},
             "volume": case.serve("pet", Volume(hot, GRID, "a.u.")), "unpaired_text": "", "unmatched": []}  # fmt: skip
    case.show(comparisons=[entry])
    own = case.viewer("return v.state.window")
    case.page.keyboard.press("Shift+Q")
    wait_for_sequence(case, "PT")
    case.viewer("v.comparison.setWindow({ name: 'own', low: 0, high: 1000 }); v.draw()")
    indices = [[i, 10, 6] for i in (2, 7, 13)]
    below = expect_grey(make_sequence(0), own, indices)
    colours = [[0, 0, 0], [255, 128, 0], [255, 255, 255]]
    for read, grey, colour, alpha in zip(
        read_colours(case, "v.panes", indices), below, colours, (0, 190, 190), strict=True
    ):
        expected = [g + (c - g) * alpha / 255 for g, c in zip(grey, colour, strict=True)]
        assert np.abs(np.subtract(read, expected)).max() <= 3
    case.page.keyboard.press("Shift+Q")
    assert read_colours(case, "v.panes", indices) == below
