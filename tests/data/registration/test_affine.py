"""An affine start finds scans that extents do not align, and an atlas that was stopped goes on where it was."""

import numpy as np
import pytest
import SimpleITK as sitk

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.data.registration import atlas
from medssl.data.registration.affine import align_affine, displace
from medssl.data.registration.atlas import GriddedScans
from medssl.data.registration.grids import interpolate
from medssl.data.registration.parcels import AtlasConfig, build_atlas
from medssl.volume import Volume
from tests.helpers.registered_scenes import OFFSETS, SHAPE, draw_scene, write_scans

SMALL = AtlasConfig(num_parcels=4)


def ignore_progress(step, finished, total):
    pass


def move(image, matrix):
    """Samples an image at the voxels that a matrix maps each voxel to."""
    return interpolate(image, (np.indices(image.shape) + displace(matrix, image.shape)).astype(np.float32))


@pytest.mark.parametrize("shift", [(0, 0, 0), (5, -4, 3)])
def test_a_known_affine_map_is_found(shift):
    fixed = draw_scene().astype(np.float32)
    matrix = np.eye(4)
    matrix[:3, :3] = [[1.08, 0.06, 0], [-0.05, 0.95, 0], [0, 0.04, 1.0]]
    matrix[:3, 3] = (np.array(SHAPE) - 1) / 2 - matrix[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + shift
    moving = move(fixed, np.linalg.inv(matrix))
    found_matrix = align_affine(fixed, moving)
    inner = (slice(6, -6),) * 3
    before = np.corrcoef(moving[inner].ravel(), fixed[inner].ravel())[0, 1]
    after = np.corrcoef(move(moving, found_matrix)[inner].ravel(), fixed[inner].ravel())[0, 1]
    assert after > 0.97 and 1 - after < (1 - before) / 2
    assert np.abs(displace(found_matrix, SHAPE) - displace(matrix, SHAPE)).mean() < 1


def test_equal_images_and_noise_keep_the_identity():
    noise = np.random.default_rng(0).normal(0, 1, (2, 16, 16, 16)).astype(np.float32)
    assert np.allclose(align_affine(noise[0], noise[0]), np.eye(4), atol=1e-3)
    mapped = displace(align_affine(*noise), (16, 16, 16))
    assert np.isfinite(mapped).all()


def test_scans_that_lie_far_apart_are_registered_after_an_affine_start(tmp_path):
    path = write_scans(tmp_path / "store", ((0, 0, 0), (7, -7, 5)))
    reference = next(image for case, image in GriddedScans(Manifest.read(path)) if case.id == "c0")
    correlations = {}
    for alignment in ("extent", "affine"):
        scans = GriddedScans(Manifest.read(path), alignment)
        *_, last = scans.register_all(reference, *atlas.REGISTRATION_ROUNDS[0])
        correlations[alignment] = last.correlate_with(reference)
    assert correlations["affine"] > 0.9 and correlations["affine"] > correlations["extent"] + 0.05


def test_a_start_of_no_displacement_changes_nothing():
    fixed, moving = (draw_scene(offset).astype(np.float32) for offset in OFFSETS[:2])
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(5)
    demons.SetStandardDeviations(1.0)
    field = sitk.GetArrayFromImage(demons.Execute(sitk.GetImageFromArray(fixed), sitk.GetImageFromArray(moving)))
    started = atlas._run_demons(fixed, moving, np.zeros((3, *SHAPE), np.float32), 1.0, 5)
    assert np.allclose(started, np.moveaxis(field, -1, 0)[::-1], atol=1e-6)


def test_an_atlas_that_was_stopped_continues_after_its_last_round(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "REGISTRATION_ROUNDS", ((2.0, 3), (1.0, 3)))
    monkeypatch.setattr(atlas, "FINAL_REGISTRATION", (1.0, 3))
    path = write_scans(tmp_path / "store", OFFSETS[:3])
    whole = build_atlas(path, tmp_path / "whole", SMALL, ignore_progress)

    def stop_in_round_two(step, finished, total):
        if step == "round 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_atlas(path, tmp_path / "out", SMALL, stop_in_round_two)
    assert not (tmp_path / "out").exists()
    steps = []
    resumed = build_atlas(path, tmp_path / "out", SMALL, lambda step, finished, total: steps.append(step))
    assert set(steps) == {"round 2", "labels"}
    assert np.array_equal(resumed.atlas.voxels, whole.atlas.voxels)
    assert not list(tmp_path.glob(".*-rounds"))


def test_rounds_of_other_scans_are_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "REGISTRATION_ROUNDS", ((2.0, 3),))
    monkeypatch.setattr(atlas, "FINAL_REGISTRATION", (1.0, 3))

    def stop_at_labels(step, finished, total):
        if step == "labels":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_atlas(write_scans(tmp_path / "a", OFFSETS[:3]), tmp_path / "out", SMALL, stop_at_labels)
    steps = []
    others = write_scans(tmp_path / "b", OFFSETS[2:])
    build_atlas(others, tmp_path / "out", SMALL, lambda step, finished, total: steps.append(step))
    assert "round 1" in steps


def test_a_scan_of_something_else_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(atlas, "REGISTRATION_ROUNDS", ((2.0, 3),))
    monkeypatch.setattr(atlas, "FINAL_REGISTRATION", (1.0, 3))
    path = write_scans(tmp_path / "store")
    noise = np.random.default_rng(0).normal(0.5, 0.2, SHAPE).astype(np.float16)[None]
    store.write(path.parent / "c3.b2nd", Volume(noise, np.eye(4), "a.u."), {})
    assert cli.run("atlas", [str(path), "--out", str(tmp_path / "out"), "--num-parcels", "4"]) == 0
    printed = capsys.readouterr().out
    assert "warning: 1 scans correlate with the atlas by less than 0.6: c3 " in printed and "affine" in printed
