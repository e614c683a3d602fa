"""No act depends on what a browser says about a case, and no stored act makes a case unreadable."""

import json

import numpy as np
import pytest

from medssl.io import nifti
from medssl.predictions_folder import read_findings, read_index
from medssl.review.access.reviewers import Reviewer
from medssl.review.case_contents import CaseContents
from medssl.review.corrected_labels import apply_reading, find_stroke_fault
from medssl.review.event import Act
from medssl.review.event_store import EventStore, record_act
from medssl.review.mask_runs import pack_runs
from medssl.review.reading import ActRejected

ANA = Reviewer("ana", "reader")
NUM_VOXELS = 36 * 32 * 24
AXES = {"plane": "axial", "long": [[0, 0, 0], [3, 4, 0]], "short": [[0, 3, 0], [3, 0, 0]]}
ADDED = {"centre_mm": [0, 0, 0], "low_mm": [0, 0, 0], "high_mm": [0, 0, 0], "label": 1, "name": "nodule",
         "volume_ml": 0, "diameter_mm": 0, "score": 1}  # fmt: skip


class Case:
    """The acts of one reader on case-a, which has two findings."""

    def __init__(self, predictions, database):
        self.index, self.store, self.number = read_index(predictions), EventStore(database), 0

    def act(self, action, reviewer=ANA, **fields):
        self.number += 1
        fields |= {"session": "s", "number": self.number}
        return record_act(self.store, self.index, reviewer, "case-a", action, **fields)

    def reading(self):
        return self.store.load_snapshot().get_reading("case-a", "ana")


@pytest.fixture
def case(predictions, tmp_path):
    return Case(predictions, tmp_path / "review.sqlite")


@pytest.mark.parametrize(
    ("action", "fields", "reason"),
    [
        ("accept", {"finding": "zzz"}, "'zzz' is not in this case"),
        ("accept", {"finding": "case-b-1-1"}, "not in this case"),
        ("reject", {"finding": "case-a-1-1", "reason": "because"}, "not a reason"),
        ("relabel", {"finding": "case-a-1-1", "label": 7}, "label 7 is not declared; known: 1, 2"),
        ("relabel", {"finding": "case-a-1-1"}, "label None is not declared"),
        ("stroke", {"mask": pack_runs([[10**12, 1, 1]])}, "leaves the image"),
        ("stroke", {"mask": pack_runs([[0, NUM_VOXELS + 1, 1]])}, "leaves the image"),
        ("stroke", {"mask": pack_runs([[0, 1, 300]])}, "label 300 is not declared"),
        ("stroke", {"mask": pack_runs([[0, 1, 1]]), "finding": "zzz"}, "not in this case"),
        ("measure", {"finding": "zzz", "details": json.dumps(AXES)}, "not in this case"),
        ("measure", {"finding": "case-a-1-1", "details": json.dumps(AXES | {"long": [[0, 0, 0], [0, 0, 999]]})},
         "outside the image"),
        ("missed", {"finding": "case-a-1-1", "details": json.dumps(ADDED)}, "in this case already"),
        ("missed", {"finding": "r", "details": json.dumps(ADDED | {"centre_mm": [0, 0, 1e9]})}, "outside the image"),
        ("missed", {"finding": "r", "details": json.dumps(ADDED | {"label": 9})}, "label 9 is not declared"),
        ("sign", {"details": "[]"}, "2 findings without a verdict: case-a-1-1, case-a-1-2"),
        ("sign", {"reviewer": Reviewer("boss", "admin")}, "As admin you may not sign"),
    ],
)  # fmt: skip
def test_an_act_that_does_not_fit_the_case_is_refused_with_words(case, action, fields, reason):
    with pytest.raises(ActRejected, match=reason.replace("[", r"\[")):
        case.act(action, **fields)
    assert case.store.read_events() == []


def test_acts_that_fit_are_stored_and_the_signature_names_what_it_signs(case):
    case.act("missed", finding="reader-1", details=json.dumps(ADDED))
    case.act("reject", finding="reader-1", reason="vessel")
    case.act("stroke", finding="reader-1", mask=pack_runs([[NUM_VOXELS - 1, 1, 2], [0, 1, 0]]))
    case.act("measure", finding="case-a-1-1", details=json.dumps(AXES))
    for number in (1, 2):
        case.act("relabel", finding=f"case-a-1-{number}", label=2)
    assert json.loads(case.act("sign").details) == ["case-a-1-1", "case-a-1-2"]
    assert case.reading().signed_at


def test_a_signature_is_refused_if_the_reader_saw_something_else(case):
    for number in (1, 2):
        case.act("accept", finding=f"case-a-1-{number}")
    seen = {"drawn": [], "decisions": {"case-a-1-1": "accept", "case-a-1-2": "accept"}}
    case.act("stroke", mask=pack_runs([[0, 1, 1]]))
    with pytest.raises(ActRejected, match="changed since you saw it"):
        case.act("sign", seen=seen)
    case.act("sign", seen=seen | {"drawn": ["s-3"]})
    assert case.reading().signed_at


def test_stored_acts_that_cannot_be_read_are_left_out_and_reported(case):
    """An older version, or a forged request, stored what does not fit; the case must still open."""
    fields = {"session": "old", "case": "case-a", "reviewer": "ana", "role": "reader"}
    bad = [
        {"action": "stroke", "mask": pack_runs([[10**12, 1, 1]])},
        {"action": "stroke", "mask": pack_runs([[0, 1, 999]])},
        {"action": "stroke", "mask": b"torn"},
        {"action": "relabel", "finding": "case-a-1-1", "label": 999},
        {"action": "missed", "finding": "m", "details": "{}"},
        {"action": "measure", "finding": "case-a-1-1", "details": "[]"},
        {"action": "stroke", "mask": pack_runs([[5, 2, 1]])},
    ]
    for number, act in enumerate(bad):
        case.store.record(Act(**fields, **act, number=number))
    reading, folder = case.reading(), case.index.case_folder("case-a")
    labels = nifti.read(folder / "labels.nii.gz", label=True)
    after = apply_reading(labels, read_findings(folder), reading).reorient("RAS")
    assert np.count_nonzero(after.voxels != labels.reorient("RAS").voxels) == 2
    assert [
        fault.split()[1] for stroke in reading.strokes if (fault := find_stroke_fault(stroke, labels.voxels.size))
    ] == list("123")
    assert [fault.split()[1:3] for fault in reading.faults] == [["5", "(missed)"], ["6", "(measure)"]]
    case.act("accept", finding="case-a-1-1")
    assert case.reading().verdicts["case-a-1-1"].decision == "accept"


def test_an_event_of_an_action_of_another_version_is_left_out(case, tmp_path):
    from sqlalchemy import NullPool, create_engine, text

    case.act("accept", finding="case-a-1-1")
    engine = create_engine(f"sqlite:///{tmp_path / 'review.sqlite'}", poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER no_update"))
        connection.execute(text("UPDATE event SET action = 'bogus'"))
    reading = EventStore(tmp_path / "review.sqlite").load_snapshot().get_reading("case-a", "ana")
    assert reading.verdicts == {} and len(reading.faults) == 1


def test_the_grid_is_read_without_the_voxels(predictions):
    contents = CaseContents.read(read_index(predictions), "case-a")
    volume = nifti.read(predictions / "case-a" / "labels.nii.gz", label=True)
    assert contents.shape == volume.shape and np.array_equal(contents.affine, volume.affine)
    assert [finding.id for finding in contents.findings] == ["case-a-1-1", "case-a-1-2"]
