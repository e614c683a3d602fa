"""Regions measure what NumPy measures; angles, arrows and projections show what they should."""

import numpy as np
import pytest
from playwright.sync_api import expect

from medssl.render.windows import Window
from medssl.volume import Volume

pytestmark = pytest.mark.browser

SHAPE, SPACING = (30, 24, 12), (1.0, 1.5, 2.0)
MEASURED = """const { measureRegion } = await import('/viewer/regions.js');
    return [v.state.measures.at(-1), measureRegion(v.state.volume, v.state.measures.at(-1))]"""


def make_scan():
    voxels = np.random.default_rng(1).integers(-900, 600, SHAPE).astype(np.int16)
    return Volume(voxels, np.diag([*SPACING, 1.0]), "HU")


@pytest.fixture
def measuring(screen):
    screen.open(make_scan())
    screen.viewer("v.store.set({ cursor: [15, 12, 6] })")
    return screen


def drag_along(screen, plane, points):
    mouse = screen.page.mouse
    mouse.move(*screen.at(plane, points[0]))
    mouse.down()
    for point in points[1:]:
        mouse.move(*screen.at(plane, point), steps=5)
    mouse.up()
    screen.viewer("")


def check_statistics(screen, mask, is_volume=False):
    line, statistics = screen.viewer(MEASURED)
    values = make_scan().voxels[mask].astype(float)
    extent = len(values) * (np.prod(SPACING) if is_volume else np.prod(SPACING[:2]))
    expected = [len(values), values.mean(), values.std(), values.min(), values.max(), extent]
    assert [statistics[name] for name in ("count", "mean", "sd", "min", "max", "extent")] == pytest.approx(expected)
    assert f"{values.mean():.1f}" in line["text"] and f"max {values.max():.0f}" in line["text"]


def test_an_ellipse_measures_the_voxels_inside(measuring):
    measuring.page.keyboard.press("Shift+O")
    measuring.drag("axial", (8, 5, 6), (22, 16, 6))
    line = measuring.viewer("return v.state.measures[0]")
    (x0, y0), (x1, y1) = (line[end][:2] for end in ("from", "to"))
    i, j, k = np.indices(SHAPE)
    inside = ((i - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((j - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2 <= 1 + 1e-9
    check_statistics(measuring, inside & (k == 6))


def test_an_outline_measures_the_voxels_inside(measuring):
    measuring.page.keyboard.press("Shift+L")
    drag_along(measuring, "axial", [(5.5, 4.5, 6), (20.5, 4.5, 6), (20.5, 15.5, 6), (5.5, 15.5, 6), (5.5, 4.5, 6)])
    inside = np.zeros(SHAPE, bool)
    inside[6:21, 5:16, 6] = True
    check_statistics(measuring, inside)


def test_a_sphere_measures_through_the_slices_and_shows_on_each_that_it_cuts(measuring):
    measuring.page.keyboard.press("Shift+B")
    measuring.drag("axial", (15, 12, 6), (21, 12, 6))
    line = measuring.viewer("return v.state.measures[0]")
    steps = [(np.indices(SHAPE)[axis] - line["from"][axis]) * SPACING[axis] for axis in range(3)]
    radius_mm = np.linalg.norm((np.array(line["to"]) - line["from"]) * SPACING)
    check_statistics(measuring, sum(step**2 for step in steps) <= radius_mm**2, is_volume=True)
    yellow = ("const { top } = v.panes[0]; const d = top.getContext('2d').getImageData(0, 0, top.width, top.height)"
              ".data; let n = 0; for (let k = 0; k < d.length; k += 4) n += d[k] === 255 && d[k + 1] === 213;"
              "return n")  # fmt: skip
    shown = []
    for k in (6, 8, 10):
        measuring.viewer("v.store.set({ cursor: [15, 12, a] })", k)
        shown.append(measuring.viewer(yellow))
    assert shown[0] > 50 and shown[1] > 50 and shown[2] == 0


def test_an_angle_takes_two_arms_and_an_arrow_none(measuring):
    measuring.page.keyboard.press("Shift+A")
    measuring.drag("axial", (10, 6, 6), (20, 6, 6))
    measuring.drag("axial", (10, 14, 6), (10, 14, 6))
    assert measuring.viewer("return v.state.measures.map(({ text }) => text)") in (["90.0°"], ["89.9°"], ["90.1°"])
    measuring.page.keyboard.press("Shift+W")
    measuring.drag("axial", (20, 16, 6), (24, 18, 6))
    measuring.drag("axial", (5, 5, 6), (5, 5, 6))
    assert measuring.viewer("return v.state.measures.map(({ shape }) => shape)") == ["angle", "arrow"]
    measuring.page.keyboard.press("Escape")
    assert measuring.viewer("return v.state.measures") == []


def test_a_slab_shows_the_largest_smallest_and_mean_value(measuring):
    voxels = make_scan().voxels
    window = Window(-1000, 700)
    measuring.viewer("v.store.set({ window: { name: 'own', low: -1000, high: 700 }, crosshairVisible: false })")
    measuring.viewer("v.store.set({ projection: { kind: 'none', slab_mm: 6 } })")
    indices = [(i, j, 6) for i in range(0, 30, 4) for j in range(0, 24, 3)]
    for reduce in (np.max, np.min, lambda slab, axis: np.floor(slab.mean(axis) + 0.5)):
        measuring.page.keyboard.press("Shift+P")
        expected = window.to_grey(reduce(voxels[..., 5:8].astype(float), 2))
        assert measuring.colours("axial", indices) == [[int(expected[i, j])] * 3 for i, j, _ in indices]
        expect(measuring.page.locator(".mv-badges")).to_contain_text("of 6 mm")
    measuring.page.keyboard.press("Shift+P")
    expected = window.to_grey(voxels[..., 6])
    assert measuring.colours("axial", indices) == [[int(expected[i, j])] * 3 for i, j, _ in indices]


def test_the_image_is_smoothed_between_its_voxels_on_demand_only(measuring):
    count = ("const { base } = v.panes[0]; const y = Math.floor(base.height / 2);"
             "return new Set(base.getContext('2d').getImageData(0, y, base.width, 1).data).size")  # fmt: skip
    measuring.viewer("v.store.set({ window: { name: 'own', low: -1000, high: 700 } })")
    voxelwise = measuring.viewer(count)
    measuring.page.keyboard.press("Shift+S")
    assert measuring.viewer(count) > 2 * voxelwise
    expect(measuring.page.locator(".mv-badges")).to_contain_text("smoothed")
