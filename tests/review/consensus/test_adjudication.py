"""Where readers differ, only what a third person decided and signed is delivered and learned from."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.export.export import ExportOptions, export_review
from medssl.io import nifti
from medssl.predictions_folder import read_findings, read_index
from medssl.review.access.reviewers import Reviewer
from medssl.review.consensus.adjudication import Dispute, list_disputes, record_choice, sign_consensus
from medssl.review.consensus.differences import load_predicted_map
from medssl.review.consensus.reading_of_record import select_reading_of_record
from medssl.review.event_store import EventStore, record_act
from medssl.review.feedback import write_feedback
from medssl.review.mask_runs import pack_runs
from medssl.review.reading import ActRejected, replay

A1, A2, B1 = "case-a-1-1", "case-a-1-2", "case-b-1-1"
ANA, BEN, CAM = Reviewer("ana", "reader"), Reviewer("ben", "senior"), Reviewer("cam", "senior")
POINT = json.dumps({"centre_mm": [0, 0, 0], "low_mm": [0, 0, 0], "high_mm": [0, 0, 0], "label": 1, "name": "nodule",
                    "volume_ml": 0.0, "diameter_mm": 0.0, "score": 1.0})  # fmt: skip


class DoubleReading:
    """Predictions that several people read."""

    def __init__(self, predictions):
        self.index, self.store, self.number = read_index(predictions), EventStore(predictions.parent / "r.sqlite"), 0

    def act(self, reviewer: Reviewer, action: str, finding: str = "", case: str = "case-a", **fields):
        self.number += 1
        fields |= {"session": "s", "number": self.number, "finding": finding}
        record_act(self.store, self.index, reviewer, case, action, **fields)
        return self

    def read(self, reviewer: Reviewer, *acts: tuple[str, str], case: str = "case-a"):
        for action, finding in acts:
            self.act(reviewer, action, finding, case)
        return self.act(reviewer, "sign", case=case)

    def choose(self, finding: str, reader: str, reviewer: Reviewer = CAM):
        self.number += 1
        record_choice(self.store, self.index, reviewer, "case-a", finding, reader, "s", self.number)
        return self

    def sign(self, reviewer: Reviewer = CAM):
        self.number += 1
        sign_consensus(self.store, self.index, reviewer, "case-a", "s", self.number)
        return self

    @property
    def record(self):
        return select_reading_of_record(self.index, "case-a", self.store.read_events(), include_unsigned=False)

    @property
    def decisions(self) -> dict[str, str]:
        return {name: verdict.decision for name, verdict in self.record.verdicts.items()}

    @property
    def differences(self) -> list[str]:
        return [d.finding for d in Dispute.from_events("case-a", self.store.read_events()).find_differences(self.index)]

    def feedback_reason(self, out) -> str:
        results = write_feedback(self.index, self.store.read_events(), out, {})
        return next(result.reason for result in results if result.case == "case-a")


@pytest.fixture
def review(predictions):
    """Ana and Ben differ on the second finding; case B is read by Ana alone."""
    double = DoubleReading(predictions)
    double.read(ANA, ("accept", A1), ("accept", A2)).read(BEN, ("accept", A1), ("reject", A2))
    return double.read(ANA, ("accept", B1), case="case-b")


def test_readers_who_differ_are_named_and_nothing_of_the_case_leaves(review, tmp_path):
    message = r"ana and ben differ on case-a-1-2 \(ana: accepted, ben: rejected\); a senior who has not read the case"
    with pytest.raises(BadInput, match=message):
        _ = review.record
    exports = export_review(review.index, review.store, tmp_path / "out", ExportOptions())
    assert "differ on case-a-1-2" in exports[0].reason and not exports[1].reason
    assert not (tmp_path / "out" / "case-a").exists()
    assert "differ on case-a-1-2" in review.feedback_reason(tmp_path / "set")
    assert not (tmp_path / "set" / "labelsTr" / "case-a.nii.gz").exists()


@pytest.mark.parametrize(("reader", "decision"), [("ana", "accept"), ("ben", "reject")])
def test_the_consensus_counts_and_not_the_latest_signature(review, tmp_path, reader, decision):
    review.choose(A2, reader).sign()
    assert review.decisions == {A1: "accept", A2: decision}
    assert (review.record.reviewer, review.record.meaning) == ("cam", "consensus")
    assert review.feedback_reason(tmp_path / "set") == ""
    labels = nifti.read(tmp_path / "set" / "labelsTr" / "case-a.nii.gz", label=True).voxels
    predicted = nifti.read(review.index.case_folder("case-a") / "labels.nii.gz", label=True).voxels
    assert (labels > 0).sum() == (predicted > 0).sum() / (1 if decision == "accept" else 2)
    provenance = json.loads((tmp_path / "set" / "provenance.json").read_text())["cases"][0]
    assert (provenance["reviewer"], provenance["authors"][A2]) == ("cam", reader)
    export_review(review.index, review.store, tmp_path / "out", ExportOptions(cases=("case-a",)))
    table = (tmp_path / "out" / "findings.csv").read_text()
    assert ",cam,senior," in table and ",consensus," in table


def test_readers_who_agree_need_no_third(predictions):
    review = DoubleReading(predictions).read(ANA, ("accept", A1), ("reject", A2))
    review.read(BEN, ("accept", A1), ("reject", A2))
    assert review.differences == [] and review.decisions == {A1: "accept", A2: "reject"}
    with pytest.raises(ActRejected, match="do not differ"):
        review.sign()


def draw(review, reviewer: Reviewer, length: int) -> None:
    """Adds voxels to the first finding, next to its first voxel in the order of the runs."""
    labels = nifti.read(review.index.case_folder("case-a") / "labels.nii.gz", label=True).reorient("RAS").voxels
    review.act(
        reviewer, "stroke", A1, mask=pack_runs([(int(np.flatnonzero(labels.ravel("F"))[0]) - length, length, 1)])
    )


def test_an_outline_that_differs_is_decided_too_and_only_that_of_the_chosen_reader_counts(predictions, tmp_path):
    review = DoubleReading(predictions)
    draw(review, ANA, 2)
    draw(review, BEN, 3)
    for reviewer in (ANA, BEN):
        review.read(reviewer, ("edit", A1), ("accept", A2))
    assert review.differences == [A1]
    with pytest.raises(BadInput, match="ana: corrected, another outline"):
        _ = review.record
    review.choose(A1, "ana").sign()
    assert [stroke.reviewer for stroke in review.record.strokes] == ["ana"]
    assert review.feedback_reason(tmp_path / "set") == ""
    labels = nifti.read(tmp_path / "set" / "labelsTr" / "case-a.nii.gz", label=True).voxels
    predicted = nifti.read(review.index.case_folder("case-a") / "labels.nii.gz", label=True).voxels
    assert (labels > 0).sum() == (predicted > 0).sum() + 2
    export_review(review.index, review.store, tmp_path / "out", ExportOptions(cases=("case-a",)))
    assert "edited by ana" in (tmp_path / "out" / "findings.csv").read_text()


def read_box(review, finding: str):
    """The voxels around a predicted finding, in RAS order with i fastest."""
    labels = nifti.read(review.index.case_folder("case-a") / "labels.nii.gz", label=True).reorient("RAS")
    (target,) = (f for f in read_findings(review.index.case_folder("case-a")) if f.id == finding)
    i, j, k = np.rint(labels.to_index(np.array(target.centre_mm))).astype(int)
    flat = np.arange(labels.voxels.size).reshape(labels.shape, order="F")
    return np.sort(flat[i - 6 : i + 7, j - 6 : j + 7, k - 6 : k + 7], axis=None)


@pytest.fixture
def overlapping(predictions):
    """Ana's first finding takes voxels that Ben's second one takes too."""
    review = DoubleReading(predictions)
    shared = read_box(review, A2)
    for reviewer, finding, voxels in ((ANA, A1, shared[:40]), (BEN, A2, shared[20:])):
        review.act(reviewer, "stroke", finding, mask=pack_runs([[n, 1, 1] for n in voxels.tolist()]))
        review.read(reviewer, ("edit", A1), ("edit", A2))
    assert review.differences == [A1, A2]
    return review


def draw_numbers(review, reading):
    return load_predicted_map(review.index, "case-a").draw(reading).numbers.voxels


def test_chosen_outlines_that_overlap_are_not_signed_as_something_else(overlapping):
    overlapping.choose(A1, "ana").choose(A2, "ben")
    with pytest.raises(ActRejected, match=r"chosen outlines overlap: case-a-1-1 would not be signed as you saw it"):
        overlapping.sign()
    with pytest.raises(BadInput, match="differ"):
        _ = overlapping.record


@pytest.mark.parametrize("reader", ["ana", "ben"])
def test_the_signed_mask_is_the_one_of_the_only_chosen_reader(overlapping, reader):
    overlapping.choose(A1, reader).choose(A2, reader).sign()
    chosen = replay(overlapping.store.read_events("case-a"))["case-a", reader]
    assert (draw_numbers(overlapping, overlapping.record) == draw_numbers(overlapping, chosen)).all()
    other = replay(overlapping.store.read_events("case-a"))["case-a", {"ana": "ben", "ben": "ana"}[reader]]
    assert (draw_numbers(overlapping, overlapping.record) != draw_numbers(overlapping, other)).any()


def test_the_same_outline_of_two_readers_is_no_difference(predictions):
    review = DoubleReading(predictions)
    for reviewer in (ANA, BEN):
        draw(review, reviewer, 2)
        review.read(reviewer, ("edit", A1), ("accept", A2))
    assert review.differences == []


@pytest.mark.parametrize(("reader", "count"), [("ana", 1), ("ben", 0)])
def test_a_finding_that_one_reader_added_is_kept_or_left_out(predictions, reader, count):
    review = DoubleReading(predictions).act(ANA, "missed", "reader-1", details=POINT)
    review.read(ANA, ("accept", A1), ("accept", A2)).read(BEN, ("accept", A1), ("accept", A2))
    assert review.differences == ["reader-1"]
    review.choose("reader-1", reader).sign()
    assert len(review.record.added) == count and ("reader-1" in review.record.verdicts) == bool(count)


def test_who_read_the_case_or_is_no_senior_does_not_decide(review):
    for reviewer, message in [
        (BEN, "one of the readers"), (Reviewer("dan", "reader"), "you may not adjudicate"),
        (Reviewer("eve", "admin"), "you may not adjudicate"),
    ]:  # fmt: skip
        with pytest.raises(ActRejected, match=message):
            review.choose(A2, "ana", reviewer)
        with pytest.raises(ActRejected, match=message):
            review.sign(reviewer)


def test_every_difference_needs_a_decision_before_the_signature(review):
    with pytest.raises(ActRejected, match=f"Without a decision: {A2}"):
        review.sign()
    with pytest.raises(ActRejected, match="Look at the case again"):
        review.choose(A1, "ana")
    with pytest.raises(ActRejected, match="Look at the case again"):
        review.choose(A2, "cam")


def test_a_consensus_ends_when_a_reader_signs_again_and_a_decision_too(review):
    review.choose(A2, "ana").sign()
    review.act(BEN, "reopen").read(BEN, ("unsure", A2))
    with pytest.raises(BadInput, match="ben: unsure"):
        _ = review.record
    with pytest.raises(ActRejected, match="Without a decision"):
        review.sign()


def test_a_second_senior_does_not_replace_a_consensus_but_its_author_may(review):
    review.choose(A2, "ana").sign()
    with pytest.raises(ActRejected, match="cam has signed the consensus"):
        review.choose(A2, "ben", Reviewer("dan", "senior"))
    assert review.choose(A2, "ben").sign().decisions[A2] == "reject"


def test_an_old_sign_in_signs_no_consensus(review):
    review.choose(A2, "ana")
    with pytest.raises(ActRejected, match="Sign in again"):
        review.sign(replace(CAM, signs_until=time.time() - 1))


def test_a_third_reader_who_agrees_with_one_of_two_leaves_the_case_in_dispute(review):
    review.read(Reviewer("dan", "reader"), ("accept", A1), ("accept", A2))
    with pytest.raises(BadInput, match="ana and ben and dan differ"):
        _ = review.record


def test_disputes_without_a_consensus_come_first(review):
    assert [(d.case, d.consensus) for d in list_disputes(review.index, review.store.read_events())] == [
        ("case-a", None)
    ]


def test_unsigned_readings_that_differ_give_no_label(predictions, tmp_path):
    review = DoubleReading(predictions).read(ANA, ("accept", B1), case="case-b")
    for reviewer, decision in ((ANA, "accept"), (BEN, "reject")):
        review.act(reviewer, "accept", A1).act(reviewer, decision, A2)
    assert "they sign their readings" in review.feedback_reason(tmp_path / "set")


def test_an_unsure_verdict_says_what_it_means_for_training(predictions, tmp_path):
    review = (
        DoubleReading(predictions).read(ANA, ("accept", B1), case="case-b").read(ANA, ("accept", A1), ("unsure", A2))
    )
    reason = review.feedback_reason(tmp_path / "set")
    assert reason.startswith(f"a reader was unsure of {A2}") and "sign again" in reason


def test_an_export_by_another_person_is_not_taken_for_the_latest_reading(predictions):
    review = DoubleReading(predictions).act(ANA, "accept", A1).act(CAM, "deliver")
    reading = select_reading_of_record(review.index, "case-a", review.store.read_events(), include_unsigned=True)
    assert reading.reviewer == "ana"
