"""Parcels follow what scans show of one place, by their own images alone; what no atlas can be made of is refused."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.data.registration import atlas
from medssl.data.registration.atlas import Scans, spread
from medssl.data.registration.parcels import Options, make, pieces
from medssl.data.store import Card, Store
from medssl.volume import Volume
from tests.helpers.registered_scenes import MOVES, SIDES, scans, scene


def drawn(manifest):
    """Case -> its parcels."""
    shelf = Store(Manifest.read(manifest))
    return {case.id: shelf.label(case).volume().voxels for case in shelf.manifest.cases}


def quiet(what, done, of):
    pass


def followed(found: dict, moves=MOVES) -> tuple[float, float]:
    """How often a scan's parcel, at its moved place and at the same place, is that of the first scan."""
    middle = tuple(slice(4, n - 4) for n in SIDES)
    edge = (ndimage.generic_gradient_magnitude(scene(), ndimage.sobel) > 0.5)[middle]
    moved, still = [], []
    for name, by in list(zip(found, moves, strict=True))[1:]:
        back = np.roll(found[name], [-m for m in by], (0, 1, 2))
        moved.append((back[middle] == found["c0"][middle])[edge].mean())
        still.append((found[name][middle] == found["c0"][middle])[edge].mean())
    return float(np.mean(moved)), float(np.mean(still))


def test_parcels_move_with_what_scans_show(tmp_path):
    made = make(scans(tmp_path / "store"), tmp_path / "out", Options(parcels=24), quiet)
    moved, still = followed(drawn(made.manifest))
    assert moved > 0.75 and moved > still + 0.1
    assert made.after > made.before + 0.05


def test_axes_that_change_places_on_the_way_are_noticed(tmp_path, monkeypatch):
    """The fault that this test plants is the order in which SimpleITK tells a vector."""
    inner = atlas.sitk.GetArrayFromImage
    turned = lambda image: inner(image)[..., ::-1]  # noqa: E731
    monkeypatch.setattr(atlas.sitk, "GetArrayFromImage", turned)
    made = make(scans(tmp_path / "store"), tmp_path / "out", Options(parcels=24), quiet)
    moved, still = followed(drawn(made.manifest))
    assert not (moved > 0.75 and moved > still + 0.1)


def test_drawn_labels_are_not_looked_at_and_the_seed_repeats_them(tmp_path):
    bare = scans(tmp_path / "bare", MOVES[:3])
    labelled = scans(tmp_path / "labelled", MOVES[:3])
    manifest = Manifest.read(labelled)
    store.write(labelled.parent / "l.b2nd", Volume(np.ones(SIDES, np.uint8), np.eye(4), "label"), {})
    replace(manifest, cases=tuple(replace(c, label="l.b2nd") for c in manifest.cases)).write(labelled)
    Card(labels={1: "liver"}, present_labels={"c0": []}).write(labelled.parent)
    few = Options(parcels=8)
    a, b = (make(place, tmp_path / f"out{n}", few, quiet) for n, place in enumerate((bare, labelled)))
    first, second = drawn(a.manifest), drawn(b.manifest)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    card = Card.read(b.manifest.parent)
    assert list(card.labels.values()) == [f"parcel {n}" for n in range(1, 9)] and not card.present_labels


def test_only_the_asked_split_is_laid_over_each_other_and_its_images_stay_where_they_are(tmp_path):
    place = scans(tmp_path / "store", MOVES[:4])
    manifest = Manifest.read(place)
    held = replace(manifest, cases=(*manifest.cases[:3], replace(manifest.cases[3], split="test")))
    held.write(place)
    made = Manifest.read(make(place, tmp_path / "out", Options(parcels=8), quiet).manifest)
    assert [case.id for case in made.cases] == ["c0", "c1", "c2"]
    assert [made.path(c).resolve() for c in made.cases] == [manifest.path(c).resolve() for c in manifest.cases[:3]]
    assert not list((tmp_path / "out").rglob("c?.b2nd"))[3:]


def test_pieces_are_as_many_as_asked_and_keep_to_one_brightness():
    atlas = scene().astype(np.float32)
    found = pieces(atlas, 30, 0)
    assert set(np.unique(found)) == set(range(1, len(np.unique(found)) + 1)) and 25 <= found.max() <= 30
    inside = np.mean([atlas[found == n].var() for n in np.unique(found)])
    cubes = sum(axis // 8 * 4**n for n, axis in enumerate(np.indices(SIDES)))
    assert inside < 0.7 * np.mean([atlas[cubes == n].var() for n in np.unique(cubes)])


def test_a_grid_spans_the_extent_of_another():
    assert np.allclose(spread((4, 4, 4), (4, 4, 4)), np.indices((4, 4, 4)))
    there = spread((2, 3, 4), (20, 30, 40))
    assert np.allclose(there[:, 0, 0, 0], 4.5) and np.allclose(there[:, 1, 2, 3], (14.5, 24.5, 34.5))


def test_a_large_scan_has_a_coarse_atlas(tmp_path):
    manifest = Manifest.read(scans(tmp_path / "store", MOVES[:2]))
    big = replace(manifest, cases=tuple(replace(c, shape=(30, 100, 300)) for c in manifest.cases))
    assert Scans(big).grid == (30, 64, 64)


def said(capsys, *words) -> str:
    """The one line of a refused `medssl atlas`."""
    assert cli.run("atlas", [str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_no_atlas_can_be_made_of_is_one_line(tmp_path, capsys):
    place, out = scans(tmp_path / "alone", MOVES[:2], split="val"), tmp_path / "out"
    assert "split 'train' holds 1 cases" in said(capsys, place, "--out", out)
    assert "no manifest" in said(capsys, tmp_path / "none.csv", "--out", out)
    assert "parcels" in said(capsys, place, "--out", out, "--parcels", 1)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "exists already" in said(capsys, scans(tmp_path / "store", MOVES[:2]), "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
