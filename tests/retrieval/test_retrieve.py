"""The command finds the place that belongs to a place in copies of a scan on other grids, and draws it."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medssl import cli
from medssl.api import load_encoder
from medssl.io import nifti
from medssl.retrieval.features import FeatureSource
from medssl.retrieval.places import match_place
from medssl.retrieval.search import propose_regions
from medssl.volume import Volume
from tests.helpers.finished_runs import make_finished_run, write_scans

HEADS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "headneck_ct"
ENCODER = {"channels": (8, 16, 32, 32), "strides": (1, 2, 2, 2), "blocks": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose encoder has random weights, which keep what is alike alike."""
    return make_finished_run(tmp_path_factory.mktemp("retrieval") / "run", encoder=ENCODER)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Scans of invented patients, and copies of the first: flipped, resampled, and cut to a part of it."""
    folder = write_scans(tmp_path_factory.mktemp("scans"), 3)
    first = nifti.read(folder / "scan0.nii.gz")
    copies = {
        "flipped": first.reorient("PIR"),
        "thick": first.resample((1.2, 1.2, 2.0), 1),
        "part": Volume(first.voxels[4:, 2:, :], first.affine @ _shift(4, 2, 0), "HU"),
    }
    for name, copy in copies.items():
        nifti.write(replace(copy, voxels=copy.voxels.astype(np.int16)), folder / f"{name}.nii.gz")
    return folder


def _shift(*voxels):
    matrix = np.eye(4)
    matrix[:3, 3] = voxels
    return matrix


def run_command(*words):
    return cli.run("retrieve", [str(word) for word in words])


def read_table(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_place_is_found_in_flipped_resampled_and_cut_copies(run, scans, tmp_path):
    place_mm = nifti.read(scans / "scan0.nii.gz").to_mm(np.array([14.0, 11.0, 9.0]))
    options = ["--at", *place_mm, "--at-voxel", 14, 11, 9, "--modality", "CT", "--features", tmp_path / "features"]
    options += ["--tolerance", 5, "--show", 2, "--propose", 9]
    assert run_command(run.path, scans, "scan0", "--out", tmp_path / "out", *options) == 0
    rows = read_table(tmp_path / "out" / "places.csv")
    assert [row["place"] for row in rows] == ["1"] * 5 + ["2"] * 5
    assert [row["case"] for row in rows[:5]] == [row["case"] for row in rows[5:]], "mm and voxel name one place"
    for row in rows:
        distance = np.linalg.norm([float(row[f"{axis}_mm"]) for axis in "xyz"] - place_mm)
        if row["case"] in ("flipped", "thick", "part"):
            assert distance < 5 and row["is_consistent"] == "True", row
        else:
            assert float(row["similarity"]) < 0.999
    cases = read_table(tmp_path / "out" / "cases.csv")
    assert cases[0]["case"] == "flipped" and float(cases[0]["similarity"]) == pytest.approx(1, abs=1e-3)
    page = (tmp_path / "out" / "retrieval.html").read_text()
    assert page.count("<img") == 2 * 3 * 2 and "consistent" in page and "http" not in page
    assert run_command(run.path, scans, "scan0", "--out", tmp_path / "again", *options) == 0
    names = [
        f"place{number}-{case}.nii.gz" for number in (1, 2) for case in ("scan0", rows[0]["case"], rows[1]["case"])
    ]
    proposals = tmp_path / "out" / "proposals"
    assert sorted(path.name for path in proposals.iterdir()) == sorted(names)
    region = nifti.read(proposals / "place1-scan0.nii.gz")
    assert region.voxels[tuple(np.rint(region.to_index(place_mm)).astype(int))] == 1, "the place is in its region"
    for name in ("places.csv", "cases.csv", "retrieval.html"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scan9"], "scan9: no such case among 6 scans"),
        (["scan0", "--at", 900, 0, 0], "outside the scan of 26, 22, 20 voxels"),
        (["scan0", "--levels", 7], "--levels 7: the encoder has levels 0 (finest) to 3"),
        (["scan0", "--at", -14, -11, 9, "--propose", 0.5], "a normalised cut needs 8 to 4096"),
        (["scan0", "--tolerance", -1], "give numbers of at least 0"),
    ],
)
def test_bad_input_is_one_line(run, scans, tmp_path, capsys, words, message):
    assert run_command(run.path, scans, *words, "--out", tmp_path / "out", "--modality", "CT") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_scan_with_several_places_is_encoded_once_for_its_proposals():
    generator, calls = np.random.default_rng(0), []
    scans = {name: Volume(generator.random((12, 12, 12), np.float32), np.eye(4), "a.u.") for name in ("a", "b")}

    def encode(scan):
        calls.append(next(name for name, known in scans.items() if known is scan))
        return [Volume(generator.random((4, 12, 12, 12), np.float32), np.eye(4), "a.u.")]

    matches = [(1, "a", (3.0, 3.0, 3.0)), (1, "b", (4.0, 4.0, 4.0)), (2, "a", (8.0, 8.0, 8.0))]
    regions = propose_regions(scans.__getitem__, matches, FeatureSource(encode, (), "0"), 2.0)
    assert calls == ["a", "b"]
    assert len(regions) == len(matches)
    for number, case, place_mm in matches:
        assert regions[number, case].to_index(np.array(place_mm)).tolist() == [2, 2, 2]  # in the middle of its box


@pytest.mark.skipif(not HEADS.is_dir(), reason="the head and neck CTs are not on this machine")
def test_a_real_scan_that_is_turned_and_shifted_is_matched_far_better_than_by_chance(tmp_path):
    run = make_finished_run(tmp_path / "run", encoder=ENCODER, spacing_mm=(4.0, 4.0, 4.0))
    path = min((HEADS / "imagesTr").glob("*.nii.gz"))
    scan = replace(nifti.read(path), unit="HU")
    turned, change_mm = turn(scan, degrees=8, shift_mm=(11, -7, 5))
    source = FeatureSource(load_encoder(run, "cpu"), (), "w")
    levels, turned_levels = source.compute(scan), source.compute(turned)
    random = np.random.default_rng(0)
    inside = np.argwhere(ndimage.binary_erosion(scan.voxels > -300, iterations=2))
    places_mm = scan.to_mm(inside[random.choice(len(inside), 60, replace=False)].astype(float))
    truths_mm = places_mm @ change_mm[:3, :3].T + change_mm[:3, 3]
    matches = [match_place(levels, tuple(place_mm.tolist()), turned_levels) for place_mm in places_mm]
    errors = np.linalg.norm(np.array([match.place_mm for match in matches]) - truths_mm, axis=1)
    chance = np.linalg.norm(truths_mm[:, None] - truths_mm, axis=2).mean()
    consistent = errors[[match.back_mm <= 10 for match in matches]]
    assert np.median(errors) < chance / 2, (np.median(errors), chance)
    assert len(consistent) >= 3 and np.median(consistent) < 15, consistent


def turn(scan, degrees, shift_mm):
    """Returns the scan turned about the axis of the body and shifted, on its own grid, and the change in mm."""
    angle, centre_mm = np.deg2rad(degrees), scan.to_mm((np.array(scan.shape) - 1) / 2)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    change = np.eye(4)
    change[:3, :3], change[:3, 3] = rotation, centre_mm - rotation @ centre_mm + shift_mm
    moved = Volume(scan.voxels.astype(np.float32), change @ scan.affine, "HU")
    return moved.resample_to(scan, 1, -1000.0), change
