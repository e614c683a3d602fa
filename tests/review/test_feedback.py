"""Verdicts become labels: rejected gone, accepted kept, corrected replaced, and every step told."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medssl.data.ingest import dataset_layouts as layouts
from medssl.errors import BadInput
from medssl.io import nifti
from medssl.predictions_folder import Study, read_findings, read_index
from medssl.review import mask_runs as masks
from medssl.review.corrected_labels import part
from medssl.review.event import Act
from medssl.review.event_store import Store
from medssl.review.feedback import outcomes, write

A1, A2, B1 = "case-a-1-1", "case-a-1-2", "case-b-1-1"


class Desk:
    """Someone who reads."""

    def __init__(self, predictions):
        self.index = read_index(predictions)
        self.store = Store(predictions.parent / "review.sqlite")
        self.number = 0

    def does(self, action: str, finding: str = "", case: str = "case-a", reviewer: str = "ana", **said) -> "Desk":
        self.number += 1
        who = {"session": "s", "number": self.number, "reviewer": reviewer, "role": "reader"}
        self.store.record(Act(**who, action=action, finding=finding, case=case, **said))
        return self

    def writes(self, out, **more):
        return write(self.index, self.store.events(), out, more.pop("patients", {}), **more)


@pytest.fixture
def desk(predictions):
    return Desk(predictions)


def label(folder, case: str = "case-a") -> np.ndarray:
    return nifti.read(folder / "labelsTr" / f"{case}.nii.gz", label=True).voxels


def predicted(desk, case: str = "case-a"):
    return nifti.read(desk.index.case(case) / "labels.nii.gz", label=True)


def voxels(desk, finding: str) -> np.ndarray:
    case = finding[:6]
    found = next(f for f in read_findings(desk.index.case(case)) if f.id == finding)
    return part(predicted(desk, case), found)


def test_the_parts_of_all_findings_are_the_whole_label(desk):
    one, other = voxels(desk, A1), voxels(desk, A2)
    assert not (one & other).any()
    assert np.array_equal(one | other, predicted(desk).voxels > 0)


def test_rejected_goes_accepted_stays(desk, tmp_path):
    desk.does("accept", A1).does("reject", A2).writes(tmp_path / "out")
    assert np.array_equal(label(tmp_path / "out") > 0, voxels(desk, A1))
    assert np.array_equal(
        nifti.read(tmp_path / "out/imagesTr/case-a.nii.gz").voxels,
        nifti.read(desk.index.case("case-a") / "image.nii.gz").voxels,
    )


def test_a_relabelled_finding_has_its_new_label(desk, tmp_path):
    desk.does("relabel", A1, label=2).does("accept", A2).writes(tmp_path / "out")
    assert np.array_equal(label(tmp_path / "out") == 2, voxels(desk, A1))


def test_a_correction_is_what_was_drawn(desk, tmp_path):
    wanted = predicted(desk).oriented("RAS").voxels.copy()
    wanted[3:6, 4, 5:7] = 2
    wanted[wanted == 1] = 0
    runs = masks.diff(predicted(desk).oriented("RAS").voxels, wanted)
    desk.does("stroke", A1, mask=masks.pack(runs)).does("edit", A1).does("accept", A2).writes(tmp_path / "out")
    drawn = nifti.read(tmp_path / "out/labelsTr/case-a.nii.gz", label=True)
    assert np.array_equal(drawn.oriented("RAS").voxels, wanted)
    assert np.allclose(drawn.affine, predicted(desk).affine)


def test_a_stroke_that_was_undone_is_not_in_it(desk, tmp_path):
    desk.does("accept", A1).does("accept", A2).does("stroke", A1, mask=masks.pack([[0, 9, 2]]))
    desk.does("undo", target=3).writes(tmp_path / "out")
    assert np.array_equal(label(tmp_path / "out"), predicted(desk).voxels)


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        ([], "not read"),
        ([("accept", A1)], "not read to the end"),
        ([("accept", A1), ("unsure", A2)], "unsure"),
        ([("accept", A1), ("edit", A2)], "not drawn"),
    ],
)
def test_a_case_that_cannot_be_learned_from_says_why(desk, tmp_path, acts, reason):
    for action, finding in acts:
        desk.does(action, finding)
    assert reason in next(o.reason for o in outcomes(desk.index, desk.store.events()) if o.case == "case-a")
    with pytest.raises(BadInput, match="no case can be learned from"):
        desk.writes(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_signed_empty_case_teaches_what_is_not_there(desk, tmp_path):
    desk.does("sign", case="case-c", details="[]").writes(tmp_path / "out")
    assert not label(tmp_path / "out", "case-c").any()


def test_the_signed_reading_counts_before_one_that_is_only_complete(desk, tmp_path):
    desk.does("reject", B1, "case-b").does("sign", case="case-b").does("accept", B1, "case-b", "ben")
    desk.writes(tmp_path / "out")
    assert not label(tmp_path / "out", "case-b").any()


def test_ingestion_reads_it_with_its_patients_and_names(desk, tmp_path):
    desk.does("accept", B1, "case-b").writes(tmp_path / "out", patients={"case-b": "patient-7"})
    found = layouts.find(tmp_path / "out")
    assert [(s.id, s.patient, s.modalities) for s in found.sources] == [("case-b", "patient-7", ("CT",))]
    assert found.labels == {1: "nodule", 2: "cyst"}


def test_provenance_names_reader_model_and_every_verdict(desk, tmp_path):
    desk.does("accept", B1, "case-b", reason="vessel").does("sign", case="case-b").writes(tmp_path / "out")
    told = json.loads((tmp_path / "out/provenance.json").read_text())
    (case,) = told["cases"]
    assert (case["reviewer"], case["model"]["weights_sha256"]) == ("ana", "0" * 64)
    assert [e["action"] for e in case["events"]] == ["accept", "sign"]
    assert told["head"] == desk.store.events()[-1].hash and told["version"] == 1


def test_whose_case_it_is_outlives_versions_and_ingestion(desk, tmp_path):
    desk.index = replace(desk.index, studies={case: Study("p7") for case in ("case-b", "case-c")})
    desk.does("accept", B1, "case-b").writes(tmp_path / "one")
    desk.store = Store(tmp_path / "next.sqlite")
    desk.does("sign", case="case-c", details="[]").does("accept", A1).does("accept", A2)
    desk.writes(tmp_path / "two", after=tmp_path / "one")
    whose = {s.id: s.patient for s in layouts.find(tmp_path / "two").sources}
    assert whose == {"case-b": "p7", "case-c": "p7", "case-a": "case-a"}


def test_no_word_of_a_reader_is_in_a_training_set(desk, tmp_path):
    desk.does("accept", A1, note="as in Mrs Qwertzsmith").does("accept", A2).writes(tmp_path / "out")
    assert not any(b"Qwertzsmith" in path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))


def test_verdicts_on_another_models_prediction_teach_nothing(desk, tmp_path):
    desk.does("accept", B1, "case-b", model="f" * 64).does("sign", case="case-c", details="[]", model="0" * 64)
    told = {outcome.case: outcome.reason for outcome in desk.writes(tmp_path / "out")}
    assert "another model" in told["case-b"] and told["case-c"] == ""


def test_a_later_version_continues_an_earlier_one(desk, tmp_path):
    desk.does("accept", B1, "case-b").writes(tmp_path / "one")
    desk.does("sign", case="case-c", details="[]").does("reject", B1, "case-b")
    desk.writes(tmp_path / "two", after=tmp_path / "one")
    told = json.loads((tmp_path / "two/provenance.json").read_text())
    assert told["version"] == 2 and {c["case"] for c in told["cases"]} == {"case-b", "case-c"}
    assert not label(tmp_path / "two", "case-b").any()


def test_what_was_not_read_anew_is_carried_over_and_what_was_withdrawn_is_not(desk, tmp_path):
    desk.does("accept", B1, "case-b").writes(tmp_path / "one")
    desk.store = Store(tmp_path / "next.sqlite")
    desk.does("sign", case="case-c", details="[]").writes(tmp_path / "two", after=tmp_path / "one")
    assert np.array_equal(label(tmp_path / "two", "case-b"), label(tmp_path / "one", "case-b"))
    desk.does("unsure", B1, "case-b").writes(tmp_path / "three", after=tmp_path / "two")
    assert not (tmp_path / "three" / "labelsTr" / "case-b.nii.gz").exists()


def test_an_output_that_exists_is_left_alone(desk, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="exists already"):
        desk.writes(tmp_path / "out")


def test_findings_of_another_prediction_are_refused(desk):
    found = read_findings(desk.index.case("case-b"))[0]
    with pytest.raises(BadInput, match="two predictions"):
        part(predicted(desk, "case-a"), found)
