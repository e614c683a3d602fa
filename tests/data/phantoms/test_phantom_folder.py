"""A folder of phantoms laid out as a hospital would hand it out."""

import json

import numpy as np
import pytest

from medssl.data.phantoms.datasets import simulate_chest_ct, write_demo_folder
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.io.dicom import reader as dicom
from medssl.io.dicom.reader import Series

SHAPE, SPACING = (18, 18, 18), 16.0


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return write_demo_folder(out, 7, 2, 3, SHAPE, SPACING).parent


def test_curated_scans_are_listed_with_their_labels(demo_folder):
    dataset = json.loads((demo_folder / "curated/dataset.json").read_text())
    assert dataset["labels"]["5"] == "nodule" and dataset["numTraining"] == len(dataset["training"]) == 2
    for entry in dataset["training"]:
        image, label = (nifti.read(demo_folder / "curated" / entry[key]) for key in ("image", "label"))
        assert set(np.unique(label.require_same_grid(image).voxels)) <= set(range(6))


def test_archived_scans_are_read_back_exactly_and_the_localizer_is_not(demo_folder):
    items = list(dicom.read(demo_folder / "archive"))
    series = {item.patient: item for item in items if isinstance(item, Series)}
    assert len(series) == 3
    assert [item.code for item in items if not isinstance(item, Series)] == ["localizer"]
    expected = simulate_chest_ct(7003, (16, 16, 22), (17.6, 17.6, 12.8), "LPS", oblique_deg=7.0)
    read = series[expected.patient].volume().reorient("RAS")
    np.testing.assert_array_equal(
        read.require_same_grid(expected.image.reorient("RAS")).voxels, expected.image.reorient("RAS").voxels
    )


def test_the_truth_lists_every_scan_with_its_path(demo_folder):
    cases = json.loads((demo_folder / "truth.json").read_text())["cases"]
    assert len({case["patient"] for case in cases}) == 5
    assert all((demo_folder / case["where"]).exists() for case in cases)
    for case in cases:
        expected = simulate_chest_ct(int(case["case"].split("-")[1]), (8, 8, 8), (36.0, 36.0, 36.0))
        assert [n["diameter_mm"] for n in case["nodules"]] == [n.diameter_mm for n in expected.nodules]


def test_all_scans_have_the_same_field_of_view(demo_folder):
    for entry in sorted((demo_folder / "curated/imagesTr").iterdir()):
        volume = nifti.read(entry).reorient("RAS")
        np.testing.assert_allclose(np.array(volume.shape) * volume.spacing_mm(), 288, rtol=0.05)


def test_heads_are_two_files_of_one_case_and_two_series_of_one_study(tmp_path):
    write_demo_folder(tmp_path / "out", 1, 1, 1, (16, 18, 16), 12.0, "head")
    (entry,) = json.loads((tmp_path / "out/curated/dataset.json").read_text())["training"]
    assert len(entry["image"]) == 2
    series = [item for item in dicom.read(tmp_path / "out/archive") if isinstance(item, Series)]
    assert len(series) == 2 and len({s.study for s in series}) == 1 and len({s.frame_of_reference for s in series}) == 1


def test_a_folder_with_content_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match="not empty"):
        write_demo_folder(tmp_path, 0, 1, 1, SHAPE, SPACING)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
