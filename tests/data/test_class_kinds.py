"""A class is an organ, one item per case, or a lesion, one finding per component."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medssl import cli
from medssl.data import class_kinds, store
from medssl.data.class_kinds import parse_kinds, propose_kinds
from medssl.data.classes import Classes
from medssl.data.ingest.reference_labels import References
from medssl.data.ingest.source import Source
from medssl.data.manifest import Case, Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.evaluation.evaluate import select_lesion_labels
from medssl.finding import Verdict
from medssl.inference.connected_findings import extract_findings
from medssl.inference.import_masks import ExternalMasks
from medssl.inference.prediction_writer import PredictionWriter
from medssl.io import nifti
from medssl.predictions_folder import read_findings, read_index
from medssl.review.corrected_labels import apply_reading, extract_finding_mask
from medssl.review.reading import Reading
from medssl.review.worklist import WorklistItem
from medssl.volume import Volume

NAMES = {1: "lung", 2: "heart", 3: "spine", 4: "nodule"}
ORGANS = frozenset({1, 2, 3})


def scene():
    """A lung of three fragments, a heart, a spine of two fragments, and two nodules."""
    voxels = np.zeros((24, 20, 16), np.uint8)
    for label, corner in ((1, (1, 1, 1)), (1, (1, 8, 1)), (1, (1, 14, 1)), (2, (8, 1, 1)), (3, (14, 1, 1))):
        voxels[tuple(slice(c, c + 4) for c in corner)] = label
    voxels[20, 1, 1], voxels[20, 10, 10] = 3, 3
    voxels[8:10, 12:14, 8:10], voxels[16:19, 14:17, 8:11] = 4, 4
    return Volume(voxels, np.diag([1.0, 1.0, 2.0, 1.0]), "label")


def find(labels):
    ones = np.ones(labels.shape, np.float32)
    return extract_findings(labels, ones, ones, "a", NAMES, organs=ORGANS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lung", "organ"), ("LeftParotid", "organ"), ("vertebrae", "organ"), ("kidneys", "organ"),
        ("nodule", "lesion"), ("lung nodule", "lesion"), ("Liver_Tumours", "lesion"), ("whole tumor", "lesion"),
        ("class 7", "lesion"),
    ],
)  # fmt: skip
def test_the_name_says_the_kind_and_doubt_says_lesion(name, kind):
    assert propose_kinds({1: name}) == {1: kind}


def test_components_decide_where_the_name_says_nothing():
    names = {1: "Anterior", 2: "Posterior", 3: "target", 4: "rare"}
    counts = {1: [1, 1, 1], 2: [1, 2, 1, 1], 3: [1, 3, 1], 4: [1, 0, 1]}
    assert propose_kinds(names, counts) == {1: "organ", 2: "organ", 3: "lesion", 4: "lesion"}
    assert set(propose_kinds(names, {n: c[:2] for n, c in counts.items()}).values()) == {"lesion"}


def test_labels_are_read_until_the_kind_is_decided(tmp_path, monkeypatch):
    voxels = np.zeros((2, 12, 10, 8), np.uint8)
    voxels[0, 1:3, 1:3, 1:3], voxels[0, 3, 3, 3], voxels[0, 6:8, 6:8, 5:7] = 1, 1, 1  # two parts that share a corner
    voxels[1] = voxels[0]
    voxels[1, ::4, ::4, 0] = 2
    written = [Volume(v, np.eye(4), "label") for v in voxels]
    cases = []
    for n, volume in enumerate([written[0], written[1], written[0], written[0]]):
        store.write(tmp_path / f"{n}.b2nd", volume, {})
        cases.append(
            Case(str(n), str(n), "", f"{n}.b2nd", "CT", "HU", (1.0, 1.0, 1.0), (12, 10, 8), 1, "train", "", "")
        )
    manifest = Manifest(tuple(cases), tmp_path)
    metadata = StoreMetadata(labels={1: "front", 2: "back"})
    counted = []
    count = class_kinds.count_components
    monkeypatch.setattr(class_kinds, "count_components", lambda mask: counted.append(count(mask)) or counted[-1])
    assert class_kinds.choose_kinds(metadata, manifest, {}) == {1: "organ", 2: "lesion"}
    assert sorted(counted) == [0, 2, 2, 2, 2]
    counted.clear()
    assert class_kinds.choose_kinds(metadata, Manifest(tuple(cases[:2]), tmp_path), {}) == {1: "lesion", 2: "lesion"}
    assert counted == []


def test_kinds_are_given_by_name():
    assert parse_kinds("target=lesion,a b=organ") == {"target": "lesion", "a b": "organ"}
    with pytest.raises(BadInput, match="'target=tumour' is not NAME=organ or NAME=lesion"):
        parse_kinds("target=tumour")


def test_an_organ_is_one_item_and_a_lesion_one_finding_per_component():
    labels = scene()
    findings = find(labels)
    assert [(f.id, f.kind) for f in findings] == [
        ("a-4-1", "lesion"), ("a-4-2", "lesion"), ("a-1-1", "organ"), ("a-2-1", "organ"), ("a-3-1", "organ"),
    ]  # fmt: skip
    for finding in findings[2:]:
        mask = labels.voxels == finding.label
        assert finding.volume_ml == pytest.approx(mask.sum() * labels.voxel_ml())
        assert (extract_finding_mask(labels, finding) == mask).all()
    item = WorklistItem(1, "a", findings, Reading("a", "ana"))
    assert [f.id for f in item.lesions] == ["a-4-1", "a-4-2"]
    assert item.largest_ml == findings[0].volume_ml < findings[2].volume_ml


def test_a_rejected_organ_takes_its_fragments_along():
    labels = scene()
    verdict = Verdict("a-1-1", "ana", "reject", "", "")
    after = apply_reading(labels, find(labels), Reading("a", "ana", {"a-1-1": verdict}))
    assert not (after.voxels == 1).any() and ((after.voxels == labels.voxels) | (labels.voxels == 1)).all()


def test_imported_masks_follow_their_kinds_to_the_index(tmp_path):
    labels = scene()
    nifti.write(labels, tmp_path / "masks" / "a.nii.gz")
    voxels = np.random.default_rng(0).integers(-1000, 1000, labels.shape).astype(np.int16)
    nifti.write(Volume(voxels, labels.affine, "HU"), tmp_path / "scans" / "a.nii.gz")
    words = [str(tmp_path / "masks"), str(tmp_path / "scans"), "--out", str(tmp_path / "out"), "--tool", "x"]
    words += ["--names", "lung,heart,axis,nodule", "--kinds", "axis=organ", "--modality", "CT"]
    assert cli.run("import-predictions", words) == 0
    index = read_index(tmp_path / "out")
    assert [label.kind for label in index.labels] == ["organ", "organ", "organ", "lesion"]
    assert len(read_findings(tmp_path / "out" / "a")) == 5
    with pytest.raises(BadInput, match="bone is no class"):
        ExternalMasks.from_folder(tmp_path / "masks", "lung,heart,axis,nodule", ["a"], {"bone": "organ"})


def test_a_folder_of_an_earlier_version_has_no_kinds(predictions):
    assert {label.kind for label in read_index(predictions).labels} == {None}
    assert {finding.kind for finding in read_findings(predictions / "case-a")} == {"lesion"}


def test_a_store_declares_kinds_and_a_later_ingestion_keeps_them(tmp_path):
    for n in range(3):
        voxels = np.random.default_rng(n).integers(0, 100, (12, 12, 12)).astype(np.int16)
        label = np.zeros((12, 12, 12), np.uint8)
        label[2:5, 2:5, 2:5], label[7:9, 7:9, 7:9] = 1, 2
        label[10, 10, 10] = 3
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        nifti.write(Volume(voxels, affine, "HU"), tmp_path / "scans" / "imagesTr" / f"c{n}_0000.nii.gz")
        nifti.write(Volume(label, affine, "label"), tmp_path / "scans" / "labelsTr" / f"c{n}.nii.gz")
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "front": 1, "nodule": 2, "spot": 3}}
    (tmp_path / "scans" / "dataset.json").write_text(json.dumps(dataset | {"file_ending": ".nii.gz"}))
    words = [str(tmp_path / "scans"), "--out", str(tmp_path / "store"), "--spacing", "native", "--workers", "0"]
    assert cli.run("ingest", [*words, "--kinds", "spot=lesion"]) == 0
    kinds = {1: "organ", 2: "lesion", 3: "lesion"}
    assert StoreMetadata.read(tmp_path / "store").kinds == kinds
    assert cli.run("ingest", words) == 0
    assert StoreMetadata.read(tmp_path / "store").kinds == kinds
    assert cli.run("ingest", [*words, "--kinds", "bone=organ"]) == 2


def test_evaluation_scores_declared_lesions(tmp_path):
    index = PredictionWriter.create(tmp_path / "p", NAMES, {"run": "r", "weights_sha256": "x"}).index
    index = replace(index, cases=("a",))
    labelled = {"a": Source("a", "a", (), (), tmp_path)}
    assert [label.name for label in select_lesion_labels(index, None, References(tmp_path, labelled))] == ["nodule"]
    assert select_lesion_labels(index, "", References(tmp_path, labelled)) == ()
    only_organs = References(tmp_path, labelled, Classes(NAMES, present={"a": [1, 2, 3]}))
    assert select_lesion_labels(index, None, only_organs) == ()
