"""Masks of other tools become predictions under all supported file names, and invalid masks are refused."""

import csv
import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from medssl.cli import run
from medssl.io import nifti
from medssl.predictions_folder import list_sequences, read_findings, read_index
from medssl.review.access.signed_links import Link
from medssl.review.image_files import ImageFiles
from tests.helpers.prediction_scenes import LESION, OTHER, PREDICTED, make_image, make_labels

DATASET = {"labels": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}, "file_ending": ".nii.gz"}


@pytest.fixture
def scans(tmp_path):
    for case, label in PREDICTED.items():
        nifti.write(make_image(label), tmp_path / "scans" / f"{case}.nii.gz")
    return tmp_path / "scans"


@pytest.fixture
def masks(tmp_path):
    for case, label in PREDICTED.items():
        nifti.write(label, tmp_path / "masks" / f"{case}.nii.gz")
    (tmp_path / "masks" / "dataset.json").write_text(json.dumps(DATASET))
    return tmp_path / "masks"


def import_predictions(masks, scans, *options):
    out = masks.parent / "out"
    args = (masks, scans, "--out", out, "--tool", "nnU-Net 2.6.2", "--modality", "CT", *options)
    return run("import-predictions", [str(arg) for arg in args]), out


def test_masks_are_evaluated_like_own_predictions(masks, scans, references):
    code, out = import_predictions(masks, scans)
    assert code == 0
    index = read_index(out)
    assert (index.model["run"], [label.name for label in index.labels]) == ("nnU-Net 2.6.2", ["organ", "lesion"])
    assert run("evaluate", [str(out), "--labels", str(references), "--lesions", "lesion"]) == 0
    with (out / "evaluation" / "cases.csv").open() as handle:
        dice = {(row["case"], row["label"]): float(row["dice"]) for row in csv.DictReader(handle)}
    assert dice["perfect", "lesion"] == dice["false-alarm", "organ"] == 1
    assert dice["missed", "lesion"] == dice["false-alarm", "lesion"] == 0
    assert {finding.score for finding in read_findings(out / "perfect")} == {1}


def test_nnunet_probabilities_become_scores(masks, scans):
    label = make_labels(LESION, OTHER)
    nifti.write(label, masks / "perfect.nii.gz")
    p = np.full((3, *label.shape), 0.02, np.float32)
    p[0][label.voxels == 0], p[2][label.voxels == 2] = 0.96, 0.96
    p[:, 14:17, 12:15, 9:12] = np.array([0.3, 0.1, 0.6])[
        :, None, None, None
    ]  # the second lesion has a lower probability
    np.savez_compressed(masks / "perfect.npz", probabilities=p.transpose(0, 3, 2, 1))
    code, out = import_predictions(masks, scans)
    assert code == 0
    first, second = read_findings(out / "perfect")
    assert (first.score, second.score) == (pytest.approx(0.96), pytest.approx(0.6))
    assert first.uncertainty < second.uncertainty < 1
    foreground = nifti.read(out / "perfect" / "probability.nii.gz").voxels
    assert foreground[15, 13, 10] == round(0.7 * 255) and foreground[0, 0, 0] == round(0.04 * 255)


@pytest.mark.parametrize("name", ["{}_trans", "{}/{}_trans", "{}/segmentation", "{}_0000"])
def test_bundle_file_names_are_accepted(masks, scans, name):
    for case in PREDICTED:
        path = masks / f"{name.format(case, case)}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        (masks / f"{case}.nii.gz").rename(path)
    code, out = import_predictions(masks, scans)
    assert code == 0 and set(read_index(out).cases) == set(PREDICTED)


def test_case_id_that_is_a_prefix_keeps_its_own_mask(masks, scans):
    for case, lesion in (("scan_1", LESION), ("scan_1_2", OTHER)):
        nifti.write(make_image(make_labels(lesion)), scans / f"{case}.nii.gz")
        nifti.write(make_labels(lesion), masks / f"{case}_seg.nii.gz")
    code, out = import_predictions(masks, scans)
    assert code == 0
    for case, lesion in (("scan_1", LESION), ("scan_1_2", OTHER)):
        assert np.array_equal(nifti.read(out / case / "labels.nii.gz", label=True).voxels, make_labels(lesion).voxels)


def test_masks_with_other_axes_are_reordered_without_interpolation(masks, scans):
    reoriented = PREDICTED["perfect"].reorient("SPL")
    assert reoriented.shape != PREDICTED["perfect"].shape
    nifti.write(reoriented, masks / "perfect.nii.gz")
    _, out = import_predictions(masks, scans)
    assert np.array_equal(nifti.read(out / "perfect" / "labels.nii.gz", label=True).voxels, PREDICTED["perfect"].voxels)


def test_cases_without_a_mask_are_reported(masks, scans, capsys):
    (masks / "missed.nii.gz").unlink()
    code, out = import_predictions(masks, scans, "--names", "liver,tumour")
    assert code == 0 and "no mask for 1 of 3 cases: missed" in capsys.readouterr().out
    assert [label.name for label in read_index(out).labels] == ["liver", "tumour"]


def write_structures(masks, names):
    """Writes the masks as TotalSegmentator does: a folder for each case with a file for each structure."""
    (masks / "dataset.json").unlink()
    for case, label in PREDICTED.items():
        (masks / f"{case}.nii.gz").unlink()
        for value, name in names.items():
            structure = replace(label, voxels=(label.voxels == value).astype(np.uint8))
            nifti.write(structure, masks / case / f"{name}.nii.gz")


@pytest.mark.parametrize("options", [[], ["--names", "kidney_left,kidney_cyst"]])
def test_a_file_for_each_structure_becomes_a_class(masks, scans, options):
    write_structures(masks, {1: "kidney_left", 2: "kidney_cyst", 3: "spleen"})
    code, out = import_predictions(masks, scans, *options)
    assert code == 0
    names = {label.value: label.name for label in read_index(out).labels}
    expected = {1: "kidney_left", 2: "kidney_cyst"} if options else {1: "kidney_cyst", 2: "kidney_left", 3: "spleen"}
    assert names == expected
    for case, label in PREDICTED.items():
        voxels = nifti.read(out / case / "labels.nii.gz", label=True).voxels
        assert np.array_equal(
            np.array(["", *names.values()])[voxels], np.array(["", "kidney_left", "kidney_cyst"])[label.voxels]
        )


def test_the_smaller_of_two_structures_that_overlap_is_kept(masks, scans):
    write_structures(masks, {1: "organ", 2: "lesion"})
    label = PREDICTED["perfect"]
    whole = replace(label, voxels=(label.voxels > 0).astype(np.uint8))
    nifti.write(whole, masks / "perfect" / "organ.nii.gz")
    _, out = import_predictions(masks, scans, "--names", "organ,lesion")
    assert np.array_equal(nifti.read(out / "perfect" / "labels.nii.gz", label=True).voxels, label.voxels)


def test_names_in_the_header_of_a_mask_are_read(masks, scans):
    """The table that TotalSegmentator --ml writes."""
    (masks / "dataset.json").unlink()
    rows = [f'<Label Key="{n}" Red="1" Alpha="1"><![CDATA[{name}]]></Label>' for n, name in ((1, "liver"), (2, "cyst"))]
    for path in masks.glob("*.nii.gz"):
        image = nibabel.load(path)
        xml = f"<CaretExtension><LabelTable>{''.join(rows)}</LabelTable></CaretExtension>"
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, xml.encode()))
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), path)
    code, out = import_predictions(masks, scans)
    assert code == 0 and [label.name for label in read_index(out).labels] == ["liver", "cyst"]


def damage_masks(masks, damage):
    label = PREDICTED["perfect"]
    match damage:
        case "unnamed":
            nifti.write(replace(label, voxels=label.voxels * 3), masks / "perfect.nii.gz")
        case "shifted":
            nifti.write(replace(label, affine=label.affine + 0.2 * np.eye(4, k=3)), masks / "perfect.nii.gz")
        case "no names":
            (masks / "dataset.json").unlink()
        case "damaged names":
            (masks / "dataset.json").write_text("{")
        case "two files":
            (masks / "perfect.nii.gz").unlink()
            for name in ("a", "b"):
                nifti.write(label, masks / f"perfect_{name}.nii.gz")
        case "other structures" | "one file for two":
            (masks / "perfect.nii.gz").unlink()
            for name in ("liver", "spleen") if damage == "other structures" else ("organ", "lesion"):
                nifti.write(label, masks / "perfect" / f"{name}.nii.gz")
        case "other names":
            for n, path in enumerate(sorted(masks.glob("*.nii.gz"))):
                path.rename(masks / f"{n}.nii.gz")
        case "damaged npz":
            (masks / "perfect.npz").write_bytes(b"PK")
        case "other npz":
            np.savez(masks / "perfect.npz", probabilities=np.full((3, *label.shape[::-1]), 1 / 3))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("unnamed", "perfect.nii.gz: holds [3, 6], but only [1, 2] have names"),
        ("shifted", "perfect.nii.gz: does not lie on its image's grid"),
        ("no names", "dataset.json: no such file; name the classes 1, 2, ... with --names"),
        ("damaged names", "dataset.json: has no class names"),
        ("two files", "2 masks of perfect (perfect_a.nii.gz, perfect_b.nii.gz); keep the one with all its classes"),
        ("other structures", "perfect: none of its 2 masks is named after a class (organ, lesion)"),
        ("one file for two", "lesion.nii.gz: holds several classes; keep one mask with all classes"),
        (
            "other names",
            "masks must be named after their case, as false-alarm.nii.gz; found 0.nii.gz, 1.nii.gz, 2.nii.gz",
        ),
        ("damaged npz", "perfect.npz: no nnU-Net probabilities"),
        ("other npz", "perfect.npz: disagrees with the classes of perfect.nii.gz"),
    ],
)
def test_invalid_masks_are_refused_and_leave_complete_cases(masks, scans, capsys, damage, message):
    damage_masks(masks, damage)
    code, out = import_predictions(masks, scans)
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and message in lines[-1]
    assert not list(masks.parent.glob(".part-*"))
    assert not out.exists() or "perfect" not in read_index(out).cases


def split_into_channels(scans, num_channels=3):
    """Writes each scan as CASE_0000, CASE_0001, ..., the values of which differ by one."""
    for path in sorted(scans.iterdir()):
        volume = nifti.read(path)
        for n in range(num_channels):
            name = path.name.replace(".nii.gz", f"_{n:04d}.nii.gz")
            nifti.write(replace(volume, voxels=volume.voxels + n), scans / name)
        path.unlink()


def test_channels_of_a_case_become_one_case_with_sequences(masks, scans):
    split_into_channels(scans)
    code, out = import_predictions(masks, scans)
    index = read_index(out)
    assert code == 0 and sorted(index.cases) == sorted(PREDICTED)
    images = ImageFiles(out, out.parent / "events.sqlite")
    for number, case in enumerate(index.cases, 1):
        assert list_sequences(index.case_folder(case)) == [1, 2]
        first = images.open(images.find(Link(number, "image", 0, 0)))
        for n in (1, 2):
            other = images.open(images.find(Link(number, "sequence", n, 0)))
            np.testing.assert_array_equal(other.read_planes(0, 4), first.read_planes(0, 4) + n)


def test_channels_on_different_grids_are_refused(masks, scans, capsys):
    split_into_channels(scans)
    path = scans / "perfect_0001.nii.gz"
    volume = nifti.read(path)
    nifti.write(replace(volume, voxels=volume.voxels[:-1]), path)
    code, _ = import_predictions(masks, scans)
    assert code == 2 and "do not lie on one grid" in capsys.readouterr().err
