"""The patient's left is on the right of the screen, whichever way the voxels were stored."""

import itertools

import numpy as np
import pytest

from medssl.render.windows import Window
from medssl.volume import Volume

pytestmark = pytest.mark.browser

SHAPE, MARK = (9, 8, 7), (1, 6, 5)  # left, anterior and superior of the middle
SPACING = np.diag([1.0, 1.5, 3.0, 1.0])
# Where the marker must lie: x then y from the middle of the pane, as signs.
PLACES = {"axial": (1, -1), "coronal": (1, -1), "sagittal": (-1, -1)}


def patient():
    voxels = np.random.default_rng(0).integers(-900, 300, SHAPE).astype(np.int16)
    voxels[MARK] = 3000
    return voxels


def stored_ways():
    """All 48 ways of storing one scan: axes in any order, each in either direction, the patient unmoved."""
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            voxels, change = patient().transpose(order), np.zeros((4, 4))
            change[3, 3] = 1
            for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
                change[old, new], change[old, 3] = (-1, SHAPE[old] - 1) if flip else (1, 0)
            voxels = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
            yield Volume(np.ascontiguousarray(voxels), SPACING @ change, "HU")


def make_tilted():
    """The same scan, taken with the patient's head turned by 17 degrees and nodded by 8."""
    turn, nod = np.radians([17, 8])
    about_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_r = np.array([[1, 0, 0], [0, np.cos(nod), -np.sin(nod)], [0, np.sin(nod), np.cos(nod)]])
    affine = SPACING.copy()
    affine[:3, :3] = about_s @ about_r @ SPACING[:3, :3]
    return Volume(patient(), affine, "HU")


def brightest(screen, plane):
    """Where the brightest pixel of a pane lies, from its middle, in shares of its size."""
    return screen.viewer(
        "const p = v.panes.find(p => p.plane === a); const { width, height } = p.base;"
        "const rgba = p.base.getContext('2d').getImageData(0, 0, width, height).data; const at = [];"
        "for (let n = 0; n < width * height; n++) if (rgba[4 * n] === 255) at.push([n % width, Math.floor(n / width)]);"
        "const mean = a => at.reduce((sum, xy) => sum + xy[a], 0) / at.length;"
        "return [mean(0) / width - 0.5, mean(1) / height - 0.5]",
        plane,
    )


def show_markers(screen, volume):
    """Opens a volume with the crosshair on the marker, in a window in which nothing else is white."""
    screen.open(volume)
    screen.viewer(f"v.store.set({{ cursor: {list(MARK)}, window: {{ name: 'own', low: -1000, high: 2500 }} }})")
    return {plane: tuple(np.sign(brightest(screen, plane))) for plane in PLACES}


def test_left_is_right_in_all_48_ways_of_storing_and_tilted(screen):
    for volume in [*stored_ways(), make_tilted()]:
        assert show_markers(screen, volume) == PLACES, volume.orientation()


def test_a_mirrored_axial_plane_is_noticed(screen):
    modules = screen.frontends["viewer"]
    faulty = modules["volume.js"].replace(b"out[last - n] = data[from + n]", b"out[n] = data[from + n]")
    assert faulty != modules["volume.js"]
    modules["volume.js"] = faulty
    assert show_markers(screen, next(stored_ways())) != PLACES


def test_letters_name_the_sides_and_a_tilted_scan_is_marked(screen):
    for volume in [*stored_ways()][::7]:
        screen.open(volume)
        letters = screen.viewer("return v.state.volume.header.letters")
        assert letters == {
            "axial": ["R", "L", "A", "P"],
            "coronal": ["R", "L", "S", "I"],
            "sagittal": ["A", "P", "S", "I"],
        }
        assert screen.page.locator(".mv-badge").count() == 0
    screen.open(make_tilted())
    assert "oblique 19°" in screen.page.locator(".mv-badges").inner_text()


def test_every_pixel_is_the_window_of_the_stored_voxel(screen):
    volume = make_tilted()
    screen.open(volume)
    screen.viewer("v.store.set({ window: { name: 'own', low: -700, high: 150 } })")
    grey = Window(-700, 150).to_grey(volume.voxels)
    cursor = screen.viewer("return v.state.cursor")
    for plane, across in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        indices = [index for index in itertools.product(*(range(n) for n in SHAPE)) if index[across] == cursor[across]]
        assert screen.colours(plane, indices) == [[int(grey[index])] * 3 for index in indices]


def test_proportions_are_those_of_the_patient(screen):
    screen.open(next(stored_ways()))
    steps = screen.viewer("return Object.fromEntries(v.panes.map(p => [p.plane, p.frame.step]))")
    for plane, (x, y) in {"axial": (1, 1.5), "coronal": (1, 3), "sagittal": (1.5, 3)}.items():
        assert steps[plane][1] / steps[plane][0] == pytest.approx(y / x)
