"""Verdicts become labels: rejected findings are removed, accepted ones kept, corrected ones replaced."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medssl.data.ingest import dataset_layouts as layouts
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.predictions_folder import StudyRef, read_findings, read_index
from medssl.review.corrected_labels import extract_finding_mask
from medssl.review.event import Act
from medssl.review.event_store import EventStore
from medssl.review.feedback import select_readings, write_feedback
from medssl.review.mask_runs import diff_masks, pack_runs

A1, A2, B1 = "case-a-1-1", "case-a-1-2", "case-b-1-1"


class ReviewedPredictions:
    """Predictions and the event log of their readers."""

    def __init__(self, predictions):
        self.index = read_index(predictions)
        self.store = EventStore(predictions.parent / "review.sqlite")
        self.number = 0

    def act(self, action: str, finding: str = "", case: str = "case-a", reviewer: str = "ana", **fields):
        self.number += 1
        identity = {"session": "s", "number": self.number, "reviewer": reviewer, "role": "reader"}
        self.store.record(Act(**identity, action=action, finding=finding, case=case, **fields))
        return self

    def write_feedback(self, out, patients=None, previous=None):
        return write_feedback(self.index, self.store.read_events(), out, patients or {}, previous)


@pytest.fixture
def review(predictions):
    return ReviewedPredictions(predictions)


def label(folder, case: str = "case-a") -> np.ndarray:
    return nifti.read(folder / "labelsTr" / f"{case}.nii.gz", label=True).voxels


def make_predictions(review, case: str = "case-a"):
    return nifti.read(review.index.case_folder(case) / "labels.nii.gz", label=True)


def voxels(review, finding: str) -> np.ndarray:
    case = finding[:6]
    selected = next(f for f in read_findings(review.index.case_folder(case)) if f.id == finding)
    return extract_finding_mask(make_predictions(review, case), selected)


def test_the_parts_of_all_findings_are_the_whole_label(review):
    first, second = voxels(review, A1), voxels(review, A2)
    assert not (first & second).any()
    assert np.array_equal(first | second, make_predictions(review).voxels > 0)


def test_rejected_findings_are_removed_and_accepted_ones_kept(review, tmp_path):
    review.act("accept", A1).act("reject", A2).write_feedback(tmp_path / "out")
    assert np.array_equal(label(tmp_path / "out") > 0, voxels(review, A1))
    assert np.array_equal(
        nifti.read(tmp_path / "out/imagesTr/case-a.nii.gz").voxels,
        nifti.read(review.index.case_folder("case-a") / "image.nii.gz").voxels,
    )


def test_only_its_owner_can_read_a_data_set(review, tmp_path):
    review.act("accept", A1).act("accept", A2).write_feedback(tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.stat().st_mode & 0o077]


def test_a_relabelled_finding_has_its_new_label(review, tmp_path):
    review.act("relabel", A1, label=2).act("accept", A2).write_feedback(tmp_path / "out")
    assert np.array_equal(label(tmp_path / "out") == 2, voxels(review, A1))


def test_a_corrected_label_equals_the_strokes(review, tmp_path):
    corrected = make_predictions(review).reorient("RAS").voxels.copy()
    corrected[3:6, 4, 5:7] = 2
    corrected[corrected == 1] = 0
    runs = diff_masks(make_predictions(review).reorient("RAS").voxels, corrected)
    review.act("stroke", A1, mask=pack_runs(runs)).act("edit", A1).act("accept", A2).write_feedback(tmp_path / "out")
    written = nifti.read(tmp_path / "out/labelsTr/case-a.nii.gz", label=True)
    assert np.array_equal(written.reorient("RAS").voxels, corrected)
    assert np.allclose(written.affine, make_predictions(review).affine)


def test_an_undone_stroke_is_not_in_the_label(review, tmp_path):
    review.act("accept", A1).act("accept", A2).act("stroke", A1, mask=pack_runs([[0, 9, 2]]))
    review.act("undo", target=3).write_feedback(tmp_path / "out")
    assert np.array_equal(label(tmp_path / "out"), make_predictions(review).voxels)


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        ([], "not read"),
        ([("accept", A1)], "some findings have no verdict"),
        ([("accept", A1), ("unsure", A2)], "unsure"),
        ([("accept", A1), ("edit", A2)], "nothing was drawn"),
    ],
)
def test_an_excluded_case_has_a_reason(review, tmp_path, acts, reason):
    for action, finding in acts:
        review.act(action, finding)
    assert reason in next(
        o.reason for o in select_readings(review.index, review.store.read_events()) if o.case == "case-a"
    )
    with pytest.raises(BadInput, match="no case can be used for training yet"):
        review.write_feedback(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_signed_case_without_findings_has_an_empty_label(review, tmp_path):
    review.act("sign", case="case-c", details="[]").write_feedback(tmp_path / "out")
    assert not label(tmp_path / "out", "case-c").any()


def test_the_signed_reading_counts_before_one_that_is_only_complete(review, tmp_path):
    review.act("reject", B1, "case-b").act("sign", case="case-b").act("accept", B1, "case-b", "ben")
    review.write_feedback(tmp_path / "out")
    assert not label(tmp_path / "out", "case-b").any()


def test_ingestion_reads_it_with_its_patients_and_names(review, tmp_path):
    review.act("accept", B1, "case-b").write_feedback(tmp_path / "out", patients={"case-b": "patient-7"})
    dataset = layouts.discover_dataset(tmp_path / "out")
    assert [(s.id, s.patient, s.modalities) for s in dataset.sources] == [("case-b", "patient-7", ("CT",))]
    assert dataset.labels == {1: "nodule", 2: "cyst"}


def test_provenance_names_reader_model_and_every_verdict(review, tmp_path):
    review.act("accept", B1, "case-b", reason="vessel").act("sign", case="case-b").write_feedback(tmp_path / "out")
    provenance = json.loads((tmp_path / "out/provenance.json").read_text())
    (case,) = provenance["cases"]
    assert (case["reviewer"], case["model"]["weights_sha256"]) == ("ana", "0" * 64)
    assert [e["action"] for e in case["events"]] == ["accept", "sign"]
    assert provenance["head"] == review.store.read_events()[-1].hash and provenance["version"] == 1


def test_patients_are_kept_across_versions_and_ingestion(review, tmp_path):
    review.index = replace(review.index, studies={case: StudyRef("p7") for case in ("case-b", "case-c")})
    review.act("accept", B1, "case-b").write_feedback(tmp_path / "one")
    review.store = EventStore(tmp_path / "next.sqlite")
    review.act("sign", case="case-c", details="[]").act("accept", A1).act("accept", A2)
    review.write_feedback(tmp_path / "two", previous=tmp_path / "one")
    patients = {s.id: s.patient for s in layouts.discover_dataset(tmp_path / "two").sources}
    assert patients == {"case-b": "p7", "case-c": "p7", "case-a": "case-a"}


def test_notes_of_readers_are_not_in_the_data_set(review, tmp_path):
    review.act("accept", A1, note="as in Mrs Qwertzsmith").act("accept", A2).write_feedback(tmp_path / "out")
    assert not any(b"Qwertzsmith" in path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))


def test_verdicts_on_another_models_prediction_are_excluded(review, tmp_path):
    review.act("accept", B1, "case-b", model="f" * 64).act("sign", case="case-c", details="[]", model="0" * 64)
    reasons = {result.case: result.reason for result in review.write_feedback(tmp_path / "out")}
    assert "another model" in reasons["case-b"] and reasons["case-c"] == ""


def test_a_later_version_continues_an_earlier_one(review, tmp_path):
    review.act("accept", B1, "case-b").write_feedback(tmp_path / "one")
    review.act("sign", case="case-c", details="[]").act("reject", B1, "case-b")
    review.write_feedback(tmp_path / "two", previous=tmp_path / "one")
    provenance = json.loads((tmp_path / "two/provenance.json").read_text())
    assert provenance["version"] == 2 and {c["case"] for c in provenance["cases"]} == {"case-b", "case-c"}
    assert not label(tmp_path / "two", "case-b").any()


def test_cases_not_reviewed_again_are_copied_and_withdrawn_ones_are_not(review, tmp_path):
    review.act("accept", B1, "case-b").write_feedback(tmp_path / "one")
    review.store = EventStore(tmp_path / "next.sqlite")
    review.act("sign", case="case-c", details="[]").write_feedback(tmp_path / "two", previous=tmp_path / "one")
    assert np.array_equal(label(tmp_path / "two", "case-b"), label(tmp_path / "one", "case-b"))
    review.act("unsure", B1, "case-b").write_feedback(tmp_path / "three", previous=tmp_path / "two")
    assert not (tmp_path / "three" / "labelsTr" / "case-b.nii.gz").exists()


def test_an_existing_output_is_unchanged(review, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        review.write_feedback(tmp_path / "out")


def test_findings_of_another_prediction_are_refused(review):
    finding = read_findings(review.index.case_folder("case-b"))[0]
    with pytest.raises(BadInput, match="two predictions"):
        extract_finding_mask(make_predictions(review, "case-a"), finding)
