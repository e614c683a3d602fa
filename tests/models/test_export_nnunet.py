"""A store goes to nnU-Net and comes back the same; predictions are named as nnU-Net names them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import store
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.models import export_nnunet as nnunet
from medssl.predictions_folder import read_index
from medssl.volume import Volume


@pytest.fixture
def prepared(tmp_path):
    """A store of five labelled cases and one without a label."""
    scans, rng = tmp_path / "scans", np.random.default_rng(0)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    for name in "abcdef":
        image = Volume(rng.integers(-1000, 1000, (12, 11, 10)).astype(np.int16), affine, "HU")
        nifti.write(image, scans / "imagesTr" / f"{name}_0000.nii.gz")
        if name != "f":
            nifti.write(
                replace(image, voxels=(image.voxels > 500).astype(np.uint8)), scans / "labelsTr" / f"{name}.nii.gz"
            )
    told = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "bright": 1}, "file_ending": ".nii.gz"}
    (scans / "dataset.json").write_text(json.dumps(told))
    out = tmp_path / "store"
    shares = "train=0.5,val=0.25,test=0.25"
    assert cli.run("ingest", [str(scans), "--out", str(out), "--shares", shares, "--workers", "0"]) == 0
    return out / "manifest.csv"


def voxels(manifest):
    read = {c.id: store.read(manifest.path(c)).volume() for c in manifest.cases}
    labels = {c.id: store.read(manifest.label_path(c)).volume() for c in manifest.labelled().cases}
    return read, labels


def test_a_store_written_as_nnunet_data_ingests_to_the_same_store(prepared, tmp_path):
    out, again = tmp_path / "Dataset007_Bright", tmp_path / "again"
    assert cli.run("export", [str(prepared), "--nnunet", "--out", str(out)]) == 0
    assert cli.run("ingest", [str(out), "--out", str(again), "--workers", "0"]) == 0
    first, second = voxels(Manifest.read(prepared)), voxels(Manifest.read(again / "manifest.csv"))
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for case in one:
            assert np.array_equal(one[case].voxels, other[case].voxels)
            assert np.allclose(one[case].affine, other[case].affine, atol=1e-4)
    assert store.Card.read(again).labels == {1: "bright"}


def test_voxels_to_ignore_keep_nnunets_name_and_come_last(prepared, tmp_path):
    manifest = Manifest.read(prepared)
    card = store.Card.read(manifest.folder)
    card.model_copy(update={"labels": {1: "bright", 2: "Ignore"}}).write(manifest.folder)
    nnunet.write_raw(manifest, tmp_path / "Dataset007_Bright")
    told = json.loads((tmp_path / "Dataset007_Bright/dataset.json").read_text())
    assert told["labels"] == {"background": 0, "bright": 1, "ignore": 2}
    card.model_copy(update={"labels": {1: "ignore", 2: "bright"}}).write(manifest.folder)
    with pytest.raises(BadInput, match="wants the class ignore to be the last, it is 1"):
        nnunet.write_raw(manifest, tmp_path / "Dataset008_Bright")


def test_what_nnunet_has_no_words_for_is_told(prepared, tmp_path, caplog):
    manifest = Manifest.read(prepared)
    nnunet.write_raw(manifest, tmp_path / "Dataset006_Whole")
    assert not caplog.text
    learnt = next(case.id for case in manifest.labelled().cases if case.split == "train")
    told = {"present_labels": {learnt: []}, "regions": {"all of it": [1]}}
    store.Card.read(manifest.folder).model_copy(update=told).write(manifest.folder)
    nnunet.write_raw(manifest, tmp_path / "Dataset007_Partly")
    assert "in 1 cases not every class was drawn; nnU-Net learns them as background" in caplog.text
    assert "regions (all of it) are left out" in caplog.text


def test_the_layout_is_nnunets(prepared, tmp_path):
    out = tmp_path / "Dataset007_Bright"
    nnunet.write_raw(Manifest.read(prepared), out)
    told = json.loads((out / "dataset.json").read_text())
    assert told["channel_names"] == {"0": "CT"} and told["labels"] == {"background": 0, "bright": 1}
    learnt = {c.id for c in Manifest.read(prepared).labelled().cases if c.split != "test"}
    assert told["numTraining"] == len(learnt) == len(list((out / "labelsTr").iterdir()))
    assert {p.name for p in (out / "imagesTr").iterdir()} == {f"{case}_0000.nii.gz" for case in learnt}
    (split,) = json.loads((out / "splits_final.json").read_text())
    assert set(split["train"]) | set(split["val"]) == learnt and not set(split["train"]) & set(split["val"])
    tested = {c.id for c in Manifest.read(prepared).by("test").cases} | {"f"}
    assert {p.name for p in (out / "imagesTs").iterdir()} == {f"{case}_0000.nii.gz" for case in tested}


def test_what_nnunet_would_refuse_is_refused_and_nothing_is_left(prepared, tmp_path, capsys):
    manifest = Manifest.read(prepared)
    with pytest.raises(BadInput, match="Dataset001"):
        nnunet.write_raw(manifest, tmp_path / "mine")
    two = replace(manifest, cases=(*manifest.cases[:-1], replace(manifest.cases[-1], modality="MR")))
    with pytest.raises(BadInput, match="one kind"):
        nnunet.write_raw(two, tmp_path / "Dataset001_a")
    with pytest.raises(BadInput, match="nothing to learn from"):
        nnunet.write_raw(manifest.by("test"), tmp_path / "Dataset001_a")
    store.Card.read(manifest.folder).model_copy(update={"labels": {1: "a", 3: "b"}}).write(manifest.folder)
    with pytest.raises(BadInput, match="number them anew"):
        nnunet.write_raw(manifest, tmp_path / "Dataset001_a")
    assert not (tmp_path / "Dataset001_a").exists() and not list(tmp_path.glob(".part-*"))
    assert cli.run("export", [str(tmp_path / "none.csv"), "--nnunet", "--out", str(tmp_path / "Dataset001_a")]) == 2
    assert "no predictions here" in capsys.readouterr().err


def test_predictions_are_one_file_a_case_with_the_labels_bytes(predictions, tmp_path):
    out = tmp_path / "labels"
    assert cli.run("export", [str(predictions), "--nnunet", "--out", str(out)]) == 0
    index = read_index(predictions)
    assert {p.name for p in out.iterdir()} == {*(f"{case}.nii.gz" for case in index.cases), "dataset.json"}
    for case in index.cases:
        assert (out / f"{case}.nii.gz").read_bytes() == (index.case(case) / "labels.nii.gz").read_bytes()
    assert json.loads((out / "dataset.json").read_text())["labels"] == {"background": 0, "nodule": 1, "cyst": 2}
    assert cli.run("export", [str(predictions), "--nnunet", "--out", str(out)]) == 2
