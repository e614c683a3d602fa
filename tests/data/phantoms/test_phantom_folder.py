"""A folder of phantoms as a hospital would hand it out."""

import json

import numpy as np
import pytest

from medssl.data.phantoms import datasets as phantom
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.io.dicom import reader as dicom
from medssl.io.dicom.reader import Series

SHAPE, SPACING = (18, 18, 18), 16.0


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    out = tmp_path_factory.mktemp("handed") / "out"
    return phantom.demo_folder(out, 7, 2, 3, SHAPE, SPACING).parent


def test_curated_scans_are_listed_with_their_labels(handed_out):
    told = json.loads((handed_out / "curated/dataset.json").read_text())
    assert told["labels"]["5"] == "nodule" and told["numTraining"] == len(told["training"]) == 2
    for entry in told["training"]:
        image, label = (nifti.read(handed_out / "curated" / entry[key]) for key in ("image", "label"))
        assert set(np.unique(label.require_same_grid(image).voxels)) <= set(range(6))


def test_archived_scans_come_back_as_they_were_drawn_and_the_localizer_does_not(handed_out):
    found = list(dicom.read(handed_out / "archive"))
    series = {item.patient: item for item in found if isinstance(item, Series)}
    assert len(series) == 3
    assert [item.code for item in found if not isinstance(item, Series)] == ["localizer"]
    drawn = phantom.chest(7003, (16, 16, 22), (17.6, 17.6, 12.8), "LPS", oblique_deg=7.0)
    read = series[drawn.patient].volume().oriented("RAS")
    np.testing.assert_array_equal(
        read.require_same_grid(drawn.image.oriented("RAS")).voxels, drawn.image.oriented("RAS").voxels
    )


def test_the_truth_names_every_scan_where_it_lies(handed_out):
    cases = json.loads((handed_out / "truth.json").read_text())["cases"]
    assert len({case["patient"] for case in cases}) == 5
    assert all((handed_out / case["where"]).exists() for case in cases)
    for case in cases:
        drawn = phantom.chest(int(case["case"].split("-")[1]), (8, 8, 8), (36.0, 36.0, 36.0))
        assert [n["diameter_mm"] for n in case["nodules"]] == [n.diameter_mm for n in drawn.nodules]


def test_all_scans_have_the_same_field_of_view(handed_out):
    for entry in sorted((handed_out / "curated/imagesTr").iterdir()):
        volume = nifti.read(entry).oriented("RAS")
        np.testing.assert_allclose(np.array(volume.shape) * volume.spacing_mm(), 288, rtol=0.05)


def test_heads_are_two_files_of_one_case_and_two_series_of_one_study(tmp_path):
    phantom.demo_folder(tmp_path / "out", 1, 1, 1, (16, 18, 16), 12.0, "head")
    (entry,) = json.loads((tmp_path / "out/curated/dataset.json").read_text())["training"]
    assert len(entry["image"]) == 2
    series = [item for item in dicom.read(tmp_path / "out/archive") if isinstance(item, Series)]
    assert len(series) == 2 and len({s.study for s in series}) == 1 and len({s.frame_of_reference for s in series}) == 1


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match="not empty"):
        phantom.demo_folder(tmp_path, 0, 1, 1, SHAPE, SPACING)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
