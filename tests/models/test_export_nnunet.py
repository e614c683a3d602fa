"""An exported store ingests to the same store; predictions get the file names of nnU-Net."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.models import export_nnunet as export_nnunet
from medssl.predictions_folder import read_index
from medssl.volume import Volume


@pytest.fixture
def manifest_path(tmp_path):
    """Returns the manifest of a store with five labelled cases and one without a label."""
    scans, rng = tmp_path / "scans", np.random.default_rng(0)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    for name in "abcdef":
        image = Volume(rng.integers(-1000, 1000, (12, 11, 10)).astype(np.int16), affine, "HU")
        nifti.write(image, scans / "imagesTr" / f"{name}_0000.nii.gz")
        if name != "f":
            nifti.write(
                replace(image, voxels=(image.voxels > 500).astype(np.uint8)), scans / "labelsTr" / f"{name}.nii.gz"
            )
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "bright": 1}, "file_ending": ".nii.gz"}
    (scans / "dataset.json").write_text(json.dumps(dataset))
    out = tmp_path / "store"
    fractions = "train=0.5,val=0.25,test=0.25"
    assert cli.run("ingest", [str(scans), "--out", str(out), "--split-fractions", fractions, "--workers", "0"]) == 0
    return out / "manifest.csv"


def voxels(manifest):
    images = {c.id: store.read(manifest.path(c)).volume() for c in manifest.cases}
    labels = {c.id: store.read(manifest.label_path(c)).volume() for c in manifest.with_labels().cases}
    return images, labels


def test_exported_store_ingests_to_the_same_store(manifest_path, tmp_path):
    out, second_store = tmp_path / "Dataset007_Bright", tmp_path / "again"
    assert cli.run("export-store", [str(manifest_path), "--nnunet", "--out", str(out)]) == 0
    assert cli.run("ingest", [str(out), "--out", str(second_store), "--workers", "0"]) == 0
    first, second = voxels(Manifest.read(manifest_path)), voxels(Manifest.read(second_store / "manifest.csv"))
    for before, after in zip(first, second, strict=True):
        assert before.keys() == after.keys()
        for case in before:
            assert np.array_equal(before[case].voxels, after[case].voxels)
            assert np.allclose(before[case].affine, after[case].affine, atol=1e-4)
    assert StoreMetadata.read(second_store).labels == {1: "bright"}


def test_ignore_label_keeps_its_name_and_comes_last(manifest_path, tmp_path):
    manifest = Manifest.read(manifest_path)
    metadata = StoreMetadata.read(manifest.folder)
    metadata.model_copy(update={"labels": {1: "bright", 2: "Ignore"}}).write(manifest.folder)
    export_nnunet.write_raw_dataset(manifest, tmp_path / "Dataset007_Bright")
    dataset = json.loads((tmp_path / "Dataset007_Bright/dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "bright": 1, "ignore": 2}
    metadata.model_copy(update={"labels": {1: "ignore", 2: "bright"}}).write(manifest.folder)
    with pytest.raises(BadInput, match="needs the class ignore to be the last, it is 1"):
        export_nnunet.write_raw_dataset(manifest, tmp_path / "Dataset008_Bright")


def test_partial_annotations_and_regions_are_warned_about(manifest_path, tmp_path, caplog):
    manifest = Manifest.read(manifest_path)
    export_nnunet.write_raw_dataset(manifest, tmp_path / "Dataset006_Whole")
    assert not caplog.text
    annotated_case = next(case.id for case in manifest.with_labels().cases if case.split == "train")
    fields = {"present_labels": {annotated_case: []}, "regions": {"all of it": [1]}}
    StoreMetadata.read(manifest.folder).model_copy(update=fields).write(manifest.folder)
    export_nnunet.write_raw_dataset(manifest, tmp_path / "Dataset007_Partly")
    assert "1 cases do not have all classes annotated; nnU-Net learns the missing ones as background" in caplog.text
    assert "regions (all of it) are left out" in caplog.text


def test_layout_follows_nnunet(manifest_path, tmp_path):
    out = tmp_path / "Dataset007_Bright"
    export_nnunet.write_raw_dataset(Manifest.read(manifest_path), out)
    dataset = json.loads((out / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "CT"} and dataset["labels"] == {"background": 0, "bright": 1}
    training = {c.id for c in Manifest.read(manifest_path).with_labels().cases if c.split != "test"}
    assert dataset["numTraining"] == len(training) == len(list((out / "labelsTr").iterdir()))
    assert {p.name for p in (out / "imagesTr").iterdir()} == {f"{case}_0000.nii.gz" for case in training}
    (split,) = json.loads((out / "splits_final.json").read_text())
    assert set(split["train"]) | set(split["val"]) == training and not set(split["train"]) & set(split["val"])
    test_ids = {c.id for c in Manifest.read(manifest_path).in_split("test").cases} | {"f"}
    assert {p.name for p in (out / "imagesTs").iterdir()} == {f"{case}_0000.nii.gz" for case in test_ids}


def test_invalid_datasets_are_refused_and_nothing_is_left(manifest_path, tmp_path, capsys):
    manifest = Manifest.read(manifest_path)
    with pytest.raises(BadInput, match="Dataset001"):
        export_nnunet.write_raw_dataset(manifest, tmp_path / "mine")
    mixed = replace(manifest, cases=(*manifest.cases[:-1], replace(manifest.cases[-1], modality="MR")))
    with pytest.raises(BadInput, match="needs one modality"):
        export_nnunet.write_raw_dataset(mixed, tmp_path / "Dataset001_a")
    with pytest.raises(BadInput, match="nothing to learn from"):
        export_nnunet.write_raw_dataset(manifest.in_split("test"), tmp_path / "Dataset001_a")
    StoreMetadata.read(manifest.folder).model_copy(update={"labels": {1: "a", 3: "b"}}).write(manifest.folder)
    with pytest.raises(BadInput, match="renumber them"):
        export_nnunet.write_raw_dataset(manifest, tmp_path / "Dataset001_a")
    assert not (tmp_path / "Dataset001_a").exists() and not list(tmp_path.glob(".part-*"))
    assert (
        cli.run("export-store", [str(tmp_path / "none.csv"), "--nnunet", "--out", str(tmp_path / "Dataset001_a")]) == 2
    )
    assert "no predictions here" in capsys.readouterr().err


def test_predictions_are_one_unchanged_label_file_per_case(predictions, tmp_path):
    out = tmp_path / "labels"
    assert cli.run("export-store", [str(predictions), "--nnunet", "--out", str(out)]) == 0
    index = read_index(predictions)
    assert {p.name for p in out.iterdir()} == {*(f"{case}.nii.gz" for case in index.cases), "dataset.json"}
    for case in index.cases:
        assert (out / f"{case}.nii.gz").read_bytes() == (index.case_folder(case) / "labels.nii.gz").read_bytes()
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "nodule": 1, "cyst": 2}
    assert cli.run("export-store", [str(predictions), "--nnunet", "--out", str(out)]) == 2
