"""Parcels follow the anatomy of each scan, without labels; input that cannot form an atlas is refused."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.data.registration import atlas
from medssl.data.registration.atlas import GriddedScans
from medssl.data.registration.grids import grid_coordinates
from medssl.data.registration.parcels import AtlasConfig, build_atlas, parcellate
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.volume import Volume
from tests.helpers.registered_scenes import OFFSETS, SHAPE, draw_scene, write_scans


def read_labels(manifest):
    """Reads the parcels of every case."""
    labels = Store(Manifest.read(manifest))
    return {case.id: labels.label(case).volume().voxels for case in labels.manifest.cases}


def ignore_progress(step, finished, total):
    pass


def measure_agreement(parcels: dict, moves=OFFSETS) -> tuple[float, float]:
    """Measures how often a voxel has the parcel of the first scan: at its shifted position and at the same one."""
    middle = tuple(slice(4, n - 4) for n in SHAPE)
    edge = (ndimage.generic_gradient_magnitude(draw_scene(), ndimage.sobel) > 0.5)[middle]
    shifted, unshifted = [], []
    for name, offset in list(zip(parcels, moves, strict=True))[1:]:
        aligned = np.roll(parcels[name], [-shift for shift in offset], (0, 1, 2))
        shifted.append((aligned[middle] == parcels["c0"][middle])[edge].mean())
        unshifted.append((parcels[name][middle] == parcels["c0"][middle])[edge].mean())
    return float(np.mean(shifted)), float(np.mean(unshifted))


def test_parcels_move_with_the_anatomy(tmp_path):
    result = build_atlas(
        write_scans(tmp_path / "store"), tmp_path / "out", AtlasConfig(num_parcels=24), ignore_progress
    )
    shifted, unshifted = measure_agreement(read_labels(result.manifest))
    assert shifted > 0.75 and shifted > unshifted + 0.1
    assert result.correlation_after > result.correlation_before + 0.05


def test_swapped_axes_of_a_displacement_are_noticed(tmp_path, monkeypatch):
    """The planted fault is the order of the components of SimpleITK's vectors."""
    original = atlas.sitk.GetArrayFromImage
    reversed_components = lambda image: original(image)[..., ::-1]  # noqa: E731
    monkeypatch.setattr(atlas.sitk, "GetArrayFromImage", reversed_components)
    result = build_atlas(
        write_scans(tmp_path / "store"), tmp_path / "out", AtlasConfig(num_parcels=24), ignore_progress
    )
    shifted, unshifted = measure_agreement(read_labels(result.manifest))
    assert not (shifted > 0.75 and shifted > unshifted + 0.1)


def test_existing_labels_are_not_used_and_the_seed_repeats_the_parcels(tmp_path):
    unlabelled = write_scans(tmp_path / "bare", OFFSETS[:3])
    labelled = write_scans(tmp_path / "labelled", OFFSETS[:3])
    manifest = Manifest.read(labelled)
    store.write(labelled.parent / "l.b2nd", Volume(np.ones(SHAPE, np.uint8), np.eye(4), "label"), {})
    replace(manifest, cases=tuple(replace(c, label="l.b2nd") for c in manifest.cases)).write(labelled)
    StoreMetadata(labels={1: "liver"}, present_labels={"c0": []}).write(labelled.parent)
    config = AtlasConfig(num_parcels=8)
    a, b = (
        build_atlas(path, tmp_path / f"out{n}", config, ignore_progress)
        for n, path in enumerate((unlabelled, labelled))
    )
    first, second = read_labels(a.manifest), read_labels(b.manifest)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    metadata = StoreMetadata.read(b.manifest.parent)
    assert list(metadata.labels.values()) == [f"parcel {n}" for n in range(1, 9)] and not metadata.present_labels


def test_only_the_configured_split_is_used_and_its_images_are_not_copied(tmp_path):
    path = write_scans(tmp_path / "store", OFFSETS[:4])
    manifest = Manifest.read(path)
    with_test = replace(manifest, cases=(*manifest.cases[:3], replace(manifest.cases[3], split="test")))
    with_test.write(path)
    written = Manifest.read(build_atlas(path, tmp_path / "out", AtlasConfig(num_parcels=8), ignore_progress).manifest)
    assert [case.id for case in written.cases] == ["c0", "c1", "c2"]
    assert [written.path(c).resolve() for c in written.cases] == [
        manifest.path(c).resolve() for c in manifest.cases[:3]
    ]
    assert not list((tmp_path / "out").rglob("c?.b2nd"))[3:]


def test_parcels_have_the_configured_number_and_similar_intensity():
    atlas = draw_scene().astype(np.float32)
    parcels = parcellate(atlas, 30, 0)
    assert set(np.unique(parcels)) == set(range(1, len(np.unique(parcels)) + 1)) and 25 <= parcels.max() <= 30
    variance = np.mean([atlas[parcels == n].var() for n in np.unique(parcels)])
    cubes = sum(axis // 8 * 4**n for n, axis in enumerate(np.indices(SHAPE)))
    assert variance < 0.7 * np.mean([atlas[cubes == n].var() for n in np.unique(cubes)])


def test_a_grid_spans_the_extent_of_another():
    assert np.allclose(grid_coordinates((4, 4, 4), (4, 4, 4)), np.indices((4, 4, 4)))
    coordinates = grid_coordinates((2, 3, 4), (20, 30, 40))
    assert np.allclose(coordinates[:, 0, 0, 0], 4.5) and np.allclose(coordinates[:, 1, 2, 3], (14.5, 24.5, 34.5))


def test_a_large_scan_has_a_coarse_atlas(tmp_path):
    manifest = Manifest.read(write_scans(tmp_path / "store", OFFSETS[:2]))
    large = replace(manifest, cases=tuple(replace(c, shape=(30, 100, 300)) for c in manifest.cases))
    assert GriddedScans(large).grid == (30, 64, 64)


def run_refused(capsys, *words) -> str:
    """Runs a `medssl atlas` that is refused, and returns the one line it prints."""
    assert cli.run("atlas", [str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_unusable_input_is_refused_in_one_line(tmp_path, capsys):
    path, out = write_scans(tmp_path / "alone", OFFSETS[:2], split="val"), tmp_path / "out"
    assert "split 'train' holds 1 cases" in run_refused(capsys, path, "--out", out)
    assert "no manifest" in run_refused(capsys, tmp_path / "none.csv", "--out", out)
    assert "parcels" in run_refused(capsys, path, "--out", out, "--num-parcels", 1)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "exists already" in run_refused(capsys, write_scans(tmp_path / "store", OFFSETS[:2]), "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
