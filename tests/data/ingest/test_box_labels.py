"""Boxes and points become labels on the grid of the image; everything else is refused in one clear line."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl import cli
from medssl.data.ingest import dataset_layouts
from medssl.data.ingest.structures import box_labels
from medssl.data.ingest.structures.box_labels import BoxAnnotation, rasterize
from medssl.errors import BadInput, InputWarning
from medssl.io import nifti
from medssl.volume import Volume

AFFINE = np.array([[-1.25, 0, 0, 20], [0, -1.5, 0, 15], [0, 0, 2.0, -30], [0, 0, 0, 1.0]])


def make_image(shape=(30, 24, 20)):
    return Volume(np.full(shape, -800, np.int16), AFFINE, "HU")


def make_box(*corners):
    return BoxAnnotation.from_mapping(dict(zip(box_labels.BOX, corners, strict=True)), "here")


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 12)] * 3), st.tuples(*[st.integers(4, 8)] * 3))
def test_an_ellipsoid_fills_its_box_to_a_voxel_and_never_leaves_it(low, sides):
    high = np.add(low, sides)
    (side,) = ndimage.find_objects(rasterize([make_box(*low, *high)], make_image(), "a").voxels)
    first, last = np.array([s.start for s in side]), np.array([s.stop for s in side])
    assert (first >= low).all() and (first <= np.add(low, 1)).all()
    assert (last <= high).all() and (last >= high - 1).all()


@given(st.tuples(*[st.integers(0, 19)] * 3))
def test_the_smallest_box_is_its_voxel(index):
    label = rasterize([make_box(*index, *np.add(index, 1))], make_image(), "a")
    assert np.argwhere(label.voxels).tolist() == [list(index)]


def test_a_point_is_a_ball_of_its_diameter_in_mm():
    centre = make_image().to_mm(np.array([[15.0, 12, 10]]))[0]
    entry = dict(zip(box_labels.POINT_MM, (*centre, 14.0), strict=True))
    label = rasterize([BoxAnnotation.from_mapping(entry, "here")], make_image(), "a")
    volume = label.voxels.sum() * label.voxel_ml() * 1000
    assert volume == pytest.approx(np.pi / 6 * 14**3, rel=0.05)
    assert np.allclose(np.argwhere(label.voxels).mean(0), (15, 12, 10), atol=0.2)


def test_voxels_and_mm_of_one_box_draw_the_same():
    ends = make_image().to_mm(np.array([[3.5, 4.5, 5.5], [11.5, 9.5, 12.5]]))
    entry = dict(zip(box_labels.BOX_MM, (*ends.min(0), *ends.max(0)), strict=True))
    masks = [
        rasterize([b], make_image(), "a").voxels
        for b in (make_box(4, 5, 6, 12, 10, 13), BoxAnnotation.from_mapping(entry, "here"))
    ]
    assert masks[0].any() and np.array_equal(*masks)


def test_a_ball_may_reach_over_the_border_but_not_begin_outside():
    centre = make_image().to_mm(np.array([[0.0, 12, 10]]))[0]
    entry = dict(zip(box_labels.POINT_MM, (*centre, 10.0), strict=True))
    assert rasterize([BoxAnnotation.from_mapping(entry, "here")], make_image(), "a").voxels[0, 12, 10] == 1
    with pytest.raises(BadInput, match=r"case-7, box 1: .* outside the image"):
        rasterize([BoxAnnotation.from_mapping(entry | {"x_mm": centre[0] + 9}, "here")], make_image(), "case-7")


@pytest.mark.parametrize("corners", [(25, 3, 3, 36, 9, 9), (-5, 3, 3, 4, 9, 9), (50, 50, 50, 60, 60, 60)])
def test_a_box_outside_the_volume_is_refused_in_one_line(corners):
    with pytest.raises(BadInput, match=r"are outside the image of \[30, 24, 20\]") as error:
        rasterize([make_box(*corners)], make_image(), "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("corners", [(3, 3, 3, 3, 9, 9), (9, 9, 9, 3, 3, 3), (1, 1, 1, float("nan"), 4, 4)])
def test_invalid_corners_are_refused(corners):
    with pytest.raises(BadInput, match="is not a box"):
        make_box(*corners)


def test_boxes_that_touch_raise_a_warning_and_others_do_not():
    with pytest.warns(InputWarning, match="box 2 touches"):
        rasterize([make_box(2, 2, 2, 6, 6, 6), make_box(6, 2, 2, 9, 6, 6)], make_image(), "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rasterize([make_box(2, 2, 2, 6, 6, 6), make_box(9, 2, 2, 12, 6, 6)], make_image(), "a")


def test_a_folder_of_json_and_a_table_are_read_alike(tmp_path):
    entry = {"boxes": [{"box_voxel": [1, 2, 3, 4, 5, 6]}, {"center_ras_mm": [1, 2, 3], "diameter_mm": 4}]}
    (tmp_path / "a.json").write_text(json.dumps(entry))
    (tmp_path / "b.json").write_text('{"boxes": []}')
    boxes = box_labels.read_boxes(tmp_path)
    assert boxes["b"] == [] and boxes["a"] == [
        BoxAnnotation((1, 2, 3), (4, 5, 6), False),
        BoxAnnotation((-1, 0, 1), (3, 4, 5), True),
    ]
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\na,1,2,3,4,5,6\n")
    assert box_labels.read_boxes(tmp_path / "t.csv") == {"a": boxes["a"][:1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,x0,y0,z0,x1,y1,z1\na,1,2,three,4,5,6\n", "must be numbers"),
        ("case,x0\na,1\n", "no box or point"),
        ("name,x0\na,1\n", "line 2: no `case`"),
    ],
)
def test_a_table_without_boxes_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadInput, match=message):
        box_labels.read_boxes(tmp_path / "t.csv")


def test_the_command_makes_a_data_set_with_healthy_cases_on_request(tmp_path, capsys):
    for name in ("a", "b"):
        nifti.write(make_image(), tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\na,3,3,3,9,8,7\n")
    args = [str(tmp_path / "scans"), str(tmp_path / "t.csv"), "--out"]
    for out, extra, cases in (("marked", [], 1), ("all", ["--healthy"], 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            assert cli.run("boxes-to-labels", [*args, str(tmp_path / out), *extra], debug=True) == 0
        assert len(json.loads((tmp_path / out / "dataset.json").read_text())["training"]) == cases
        assert nifti.read(tmp_path / out / "labelsTr/a.nii.gz", label=True).voxels.sum() > 50
    assert cli.run("boxes-to-labels", [*args, str(tmp_path / "all")]) == 2
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\nzz,3,3,3,9,8,7\n")
    assert cli.run("boxes-to-labels", [*args, str(tmp_path / "more")]) == 2
    assert "is named zz" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_boxes_keep_their_patients(tmp_path, kind):
    for name in ("a", "b", "c"):
        nifti.write(make_image(), tmp_path / "scans" / f"{name}.nii.gz")
    corners, patients = [3, 3, 3, 9, 8, 7], {"a": "p1", "b": "p1", "c": "p2"}
    path = tmp_path / "boxes"
    if kind == "csv":
        path = tmp_path / "t.csv"
        rows = [",".join(map(str, (case, patient, *corners))) for case, patient in patients.items()]
        path.write_text("\n".join(["case,patient,x0,y0,z0,x1,y1,z1", *rows]) + "\n")
    else:
        path.mkdir()
        for case, patient in patients.items():
            entry = {"case": case, "background_patient": patient, "boxes": [{"box_voxel": corners}]}
            (path / f"{case}.json").write_text(json.dumps(entry))
    args = [str(tmp_path / "scans"), str(path), "--out", str(tmp_path / "out")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        assert cli.run("boxes-to-labels", args, debug=True) == 0
    sources = dataset_layouts.discover_dataset(tmp_path / "out").sources
    assert {source.id: source.patient for source in sources} == patients and all(source.label for source in sources)


def test_a_table_without_a_row_is_refused(tmp_path, capsys):
    nifti.write(make_image(), tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\n")
    assert (
        cli.run("boxes-to-labels", [str(tmp_path / "scans"), str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")])
        == 2
    )
    assert "has no box for a case of" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_boxes_of_several_classes_are_separate_labels(tmp_path):
    nifti.write(make_image(), tmp_path / "scans" / "a.nii.gz")
    rows = ["a,3,3,3,9,8,7,tumour", "a,15,12,10,20,16,14,cyst", "a,22,3,3,26,7,7,"]
    (tmp_path / "t.csv").write_text("\n".join(["case,x0,y0,z0,x1,y1,z1,label", *rows]) + "\n")
    args = [str(tmp_path / name) for name in ("scans", "t.csv")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        assert cli.run("boxes-to-labels", [*args, "--out", str(tmp_path / "out"), "--name", "other"], debug=True) == 0
    labels = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert labels == {"0": "background", "1": "cyst", "2": "other", "3": "tumour"}
    label = nifti.read(tmp_path / "out" / "labelsTr/a.nii.gz", label=True).voxels
    assert [int(label[index]) for index in ((6, 5, 5), (17, 14, 12), (24, 5, 5), (0, 0, 0))] == [3, 1, 2, 0]
