"""The lessons of signed cases survive a restart, leave the own case out, and are learned again if their file is bad."""

import numpy as np
import pytest

from medssl.io import nifti
from medssl.predictions_folder import IMAGE, read_index
from medssl.review.assist import context_bank
from medssl.review.assist.context_bank import ContextBank, locate_bank
from medssl.review.assist.proposal import AssistImage
from medssl.review.event import Act
from medssl.review.event_store import EventStore


@pytest.fixture
def scene(predictions, tmp_path):
    """A review in which case-a is signed with one of two findings rejected: its index, log and loader of images."""
    index, store = read_index(predictions), EventStore(tmp_path / "review.sqlite")
    acts = [("accept", "case-a-1-1"), ("reject", "case-a-1-2"), ("sign", "")]
    for number, (action, finding) in enumerate(acts, 1):
        identity = {"session": "s", "number": number, "case": "case-a", "reviewer": "ana", "role": "reader"}
        details = "[]" if action == "sign" else ""
        store.record(Act(**identity, action=action, finding=finding, details=details, model=index.weights_sha256))

    def load_image(case):
        return AssistImage.from_volume(nifti.read(index.case_folder(case) / IMAGE))

    return index, store, load_image


def test_lessons_come_back_from_the_file_and_leave_the_own_case_out(scene, tmp_path, monkeypatch):
    path = tmp_path / "bank.npz"
    assert ContextBank(path).refresh(*scene) == 1
    monkeypatch.setattr(context_bank, "learn_from_reading", None)  # nothing is learned twice
    bank = ContextBank(path)
    assert bank.refresh(*scene) == 1
    context = bank.find_context("case-b", 1)
    assert context.count == 1  # the rejected finding teaches nothing
    (shape,) = context.shapes
    assert shape.depth_mm.max() > 0 > shape.depth_mm.min() and np.isfinite(context.evidence.gram).all()
    assert bank.find_context("case-a", 1) is None and bank.find_context("case-b", 2) is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_file_is_written_again(scene, tmp_path, content):
    path = tmp_path / "bank.npz"
    path.write_bytes(content)
    assert ContextBank(path).refresh(*scene) == 1
    assert ContextBank(path).find_context("case-b", 1).count == 1


def test_lessons_of_another_version_are_learned_again(scene, tmp_path, monkeypatch):
    path = tmp_path / "bank.npz"
    ContextBank(path).refresh(*scene)
    monkeypatch.setattr(context_bank, "ENGINE_VERSION", "older")
    bank = ContextBank(path)
    assert bank.find_context("case-b", 1) is None
    assert bank.refresh(*scene) == 1 and bank.find_context("case-b", 1).count == 1


def test_lessons_from_other_features_are_learned_again(scene, tmp_path):
    path = tmp_path / "bank.npz"
    ContextBank(path, "encoder").refresh(*scene)
    assert ContextBank(path).find_context("case-b", 1) is None
    assert ContextBank(path, "encoder").find_context("case-b", 1).count == 1


def test_each_event_log_has_a_file_of_its_own(tmp_path):
    paths = {locate_bank(tmp_path / "predictions", name) for name in ("a.sqlite", "b.sqlite")}
    assert len(paths) == 2 and {path.parent for path in paths} == {tmp_path}


def test_only_the_newest_shapes_are_kept_and_all_evidence(scene, tmp_path, monkeypatch):
    context = ContextBank(tmp_path / "one.npz")
    context.refresh(*scene)
    (lesson,) = context._lessons.values()
    lessons = {str(n): {1: lesson[1], 2: lesson[1]} if n == 0 else {1: lesson[1]} for n in range(4)}
    monkeypatch.setattr(context_bank, "MAX_STORED_SHAPES", 2)
    kept = context_bank._drop_old_shapes(lessons)
    assert list(kept) == list(lessons)
    assert [len(kept[str(n)][1].shapes) for n in range(4)] == [0, 0, 1, 1] and len(kept["0"][2].shapes) == 1
    assert all(kept[key][1].evidence is lesson[1].evidence for key in kept)
