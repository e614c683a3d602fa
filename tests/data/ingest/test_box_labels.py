"""Boxes and points become labels on the image's grid; what is no box, or lies elsewhere, is one clear line."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medssl import cli
from medssl.data.ingest import box_labels as marks
from medssl.data.ingest import dataset_layouts as layouts
from medssl.data.ingest.box_labels import Mark, draw
from medssl.errors import BadInput, Doubt
from medssl.io import nifti
from medssl.volume import Volume

AFFINE = np.array([[-1.25, 0, 0, 20], [0, -1.5, 0, 15], [0, 0, 2.0, -30], [0, 0, 0, 1.0]])


def image(shape=(30, 24, 20)):
    return Volume(np.full(shape, -800, np.int16), AFFINE, "HU")


def box(*corners):
    return Mark.of(dict(zip(marks.BOX, corners, strict=True)), "here")


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 12)] * 3), st.tuples(*[st.integers(4, 8)] * 3))
def test_what_is_drawn_fills_its_box_to_a_voxel_and_never_leaves_it(low, sides):
    high = np.add(low, sides)
    (side,) = ndimage.find_objects(draw([box(*low, *high)], image(), "a").voxels)
    first, last = np.array([s.start for s in side]), np.array([s.stop for s in side])
    assert (first >= low).all() and (first <= np.add(low, 1)).all()
    assert (last <= high).all() and (last >= high - 1).all()


@given(st.tuples(*[st.integers(0, 19)] * 3))
def test_the_smallest_box_is_its_voxel(at):
    label = draw([box(*at, *np.add(at, 1))], image(), "a")
    assert np.argwhere(label.voxels).tolist() == [list(at)]


def test_a_point_is_a_ball_of_its_diameter_in_mm():
    centre = image().to_mm(np.array([[15.0, 12, 10]]))[0]
    told = dict(zip(marks.POINT_MM, (*centre, 14.0), strict=True))
    label = draw([Mark.of(told, "here")], image(), "a")
    volume = label.voxels.sum() * label.voxel_ml() * 1000
    assert volume == pytest.approx(np.pi / 6 * 14**3, rel=0.05)
    assert np.allclose(np.argwhere(label.voxels).mean(0), (15, 12, 10), atol=0.2)


def test_voxels_and_mm_of_one_box_draw_the_same():
    ends = image().to_mm(np.array([[3.5, 4.5, 5.5], [11.5, 9.5, 12.5]]))
    told = dict(zip(marks.BOX_MM, (*ends.min(0), *ends.max(0)), strict=True))
    drawn = [draw([m], image(), "a").voxels for m in (box(4, 5, 6, 12, 10, 13), Mark.of(told, "here"))]
    assert drawn[0].any() and np.array_equal(*drawn)


def test_a_ball_may_reach_over_the_border_but_not_begin_outside():
    centre = image().to_mm(np.array([[0.0, 12, 10]]))[0]
    told = dict(zip(marks.POINT_MM, (*centre, 10.0), strict=True))
    assert draw([Mark.of(told, "here")], image(), "a").voxels[0, 12, 10] == 1
    with pytest.raises(BadInput, match=r"case-7, mark 1: .* outside the image"):
        draw([Mark.of(told | {"x_mm": centre[0] + 9}, "here")], image(), "case-7")


@pytest.mark.parametrize("corners", [(25, 3, 3, 36, 9, 9), (-5, 3, 3, 4, 9, 9), (50, 50, 50, 60, 60, 60)])
def test_a_box_outside_the_volume_is_refused_in_one_line(corners):
    with pytest.raises(BadInput, match=r"lie outside the image of \[30, 24, 20\]") as said:
        draw([box(*corners)], image(), "a")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("corners", [(3, 3, 3, 3, 9, 9), (9, 9, 9, 3, 3, 3), (1, 1, 1, float("nan"), 4, 4)])
def test_what_is_no_box_is_refused(corners):
    with pytest.raises(BadInput, match="is no box"):
        box(*corners)


def test_marks_that_touch_raise_a_doubt_and_others_do_not():
    with pytest.warns(Doubt, match="mark 2 touches"):
        draw([box(2, 2, 2, 6, 6, 6), box(6, 2, 2, 9, 6, 6)], image(), "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw([box(2, 2, 2, 6, 6, 6), box(9, 2, 2, 12, 6, 6)], image(), "a")


def test_a_folder_of_json_and_a_table_say_the_same(tmp_path):
    told = {"boxes": [{"box_voxel": [1, 2, 3, 4, 5, 6]}, {"center_ras_mm": [1, 2, 3], "diameter_mm": 4}]}
    (tmp_path / "a.json").write_text(json.dumps(told))
    (tmp_path / "b.json").write_text('{"boxes": []}')
    found = marks.read(tmp_path)
    assert found["b"] == [] and found["a"] == [Mark((1, 2, 3), (4, 5, 6), False), Mark((-1, 0, 1), (3, 4, 5), True)]
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\na,1,2,3,4,5,6\n")
    assert marks.read(tmp_path / "t.csv") == {"a": found["a"][:1]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,x0,y0,z0,x1,y1,z1\na,1,2,three,4,5,6\n", "must be numbers"),
        ("case,x0\na,1\n", "no box or point"),
        ("name,x0\na,1\n", "line 2: no `case`"),
    ],
)
def test_a_table_that_says_no_marks_is_one_line(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadInput, match=said):
        marks.read(tmp_path / "t.csv")


def test_the_command_makes_a_data_set_with_healthy_cases_on_request(tmp_path, capsys):
    for name in ("a", "b"):
        nifti.write(image(), tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\na,3,3,3,9,8,7\n")
    words = [str(tmp_path / "scans"), str(tmp_path / "t.csv"), "--out"]
    for out, extra, cases in (("marked", [], 1), ("all", ["--healthy"], 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Doubt)
            assert cli.run("boxes-to-labels", [*words, str(tmp_path / out), *extra], debug=True) == 0
        assert len(json.loads((tmp_path / out / "dataset.json").read_text())["training"]) == cases
        assert nifti.read(tmp_path / out / "labelsTr/a.nii.gz", label=True).voxels.sum() > 50
    assert cli.run("boxes-to-labels", [*words, str(tmp_path / "all")]) == 2
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\nzz,3,3,3,9,8,7\n")
    assert cli.run("boxes-to-labels", [*words, str(tmp_path / "more")]) == 2
    assert "is called zz" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_marks_keep_the_patients_they_name(tmp_path, kind):
    for name in ("a", "b", "c"):
        nifti.write(image(), tmp_path / "scans" / f"{name}.nii.gz")
    corners, whose = [3, 3, 3, 9, 8, 7], {"a": "p1", "b": "p1", "c": "p2"}
    place = tmp_path / "marks"
    if kind == "csv":
        place = tmp_path / "t.csv"
        rows = [",".join(map(str, (case, patient, *corners))) for case, patient in whose.items()]
        place.write_text("\n".join(["case,patient,x0,y0,z0,x1,y1,z1", *rows]) + "\n")
    else:
        place.mkdir()
        for case, patient in whose.items():
            told = {"case": case, "background_patient": patient, "boxes": [{"box_voxel": corners}]}
            (place / f"{case}.json").write_text(json.dumps(told))
    words = [str(tmp_path / "scans"), str(place), "--out", str(tmp_path / "out")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        assert cli.run("boxes-to-labels", words, debug=True) == 0
    sources = layouts.find(tmp_path / "out").sources
    assert {source.id: source.patient for source in sources} == whose and all(source.label for source in sources)


def test_no_marks_at_all_are_refused(tmp_path, capsys):
    nifti.write(image(), tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "t.csv").write_text("case,x0,y0,z0,x1,y1,z1\n")
    assert (
        cli.run("boxes-to-labels", [str(tmp_path / "scans"), str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")])
        == 2
    )
    assert "marks no case of" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_marks_of_several_classes_are_labels_of_their_own(tmp_path):
    nifti.write(image(), tmp_path / "scans" / "a.nii.gz")
    rows = ["a,3,3,3,9,8,7,tumour", "a,15,12,10,20,16,14,cyst", "a,22,3,3,26,7,7,"]
    (tmp_path / "t.csv").write_text("\n".join(["case,x0,y0,z0,x1,y1,z1,label", *rows]) + "\n")
    words = [str(tmp_path / name) for name in ("scans", "t.csv")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        assert cli.run("boxes-to-labels", [*words, "--out", str(tmp_path / "out"), "--name", "other"], debug=True) == 0
    labels = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert labels == {"0": "background", "1": "cyst", "2": "other", "3": "tumour"}
    drawn = nifti.read(tmp_path / "out" / "labelsTr/a.nii.gz", label=True).voxels
    assert [int(drawn[at]) for at in ((6, 5, 5), (17, 14, 12), (24, 5, 5), (0, 0, 0))] == [3, 1, 2, 0]
