"""A verdict is stored with what was on screen, and a signature with its meaning and the proof of identity."""

import time
from dataclasses import replace

import pytest

from medssl.files import sha256
from medssl.io import nifti
from medssl.io.slabs.from_nifti import convert, name_slab_file
from medssl.predictions_folder import read_index
from medssl.review.access.evidence import hash_mask
from medssl.review.access.reviewers import ReviewConfig, Reviewer, identify
from medssl.review.event_store import EventStore, record_act
from medssl.review.mask_runs import pack_runs
from medssl.review.reading import ActRejected, replay


@pytest.fixture
def store(tmp_path):
    return EventStore(tmp_path / "review.sqlite")


def test_a_verdict_and_a_signature_store_what_was_on_screen(store, predictions):
    index, ana = read_index(predictions), Reviewer("ana", "senior", "proven")
    numbers = iter(range(9))

    def act(action: str, **fields):
        return record_act(store, index, ana, "case-b", action, session="s", number=next(numbers), **fields)

    for name in ("image", "labels"):
        path = predictions / "case-b" / f"{name}.nii.gz"
        convert(path, name_slab_file(path), "label" if name == "labels" else "HU")
    first = act("accept", finding="case-b-1-1")
    files = {name: sha256(predictions / "case-b" / f"{name}.nii.gz") for name in ("image", "labels")}
    assert {name: first.facts[name] for name in files} == files and "meaning" not in first.facts
    assert first.facts["image_shown"] == sha256(predictions / "case-b" / "image.slabs") != first.facts["labels_shown"]
    stroke = act("stroke", finding="case-b-1-1", mask=pack_runs([[0, 3, 1]]))
    second = act("edit", finding="case-b-1-1")
    assert first.facts["mask"] == stroke.facts["mask"] != second.facts["mask"]
    signed = act("sign", details="[]")
    (reading,) = replay(store.read_events()).values()
    assert signed.facts["mask"] == second.facts["mask"] == hash_mask(files["labels"], reading)
    assert (signed.facts["meaning"], signed.facts["proof"], reading.meaning) == ("approved", "proven", "approved")
    assert act("deliver").evidence == "" and store.find_faults() == []


def test_a_case_file_that_changes_changes_the_evidence(store, predictions):
    index, ana = read_index(predictions), Reviewer("ana", "reader")
    first = record_act(store, index, ana, "case-a", "accept", finding="case-a-1-1", session="s", number=1)
    labels = nifti.read(predictions / "case-a" / "labels.nii.gz", label=True)
    nifti.write(replace(labels, voxels=labels.voxels * 2), predictions / "case-a" / "labels.nii.gz")
    second = record_act(store, index, ana, "case-a", "accept", finding="case-a-1-2", session="s", number=2)
    assert first.facts["labels"] != second.facts["labels"] and first.facts["mask"] != second.facts["mask"]
    assert first.facts["image"] == second.facts["image"]


def test_an_act_that_is_sent_again_after_another_one_is_still_the_same(store, predictions):
    index, ana = read_index(predictions), Reviewer("ana", "reader")
    verdict = {"session": "s", "number": 1, "finding": "case-a-1-1"}
    first = record_act(store, index, ana, "case-a", "accept", **verdict)
    record_act(store, index, ana, "case-a", "stroke", session="s", number=2, mask=pack_runs([[0, 3, 1]]))
    assert record_act(store, index, ana, "case-a", "accept", **verdict) == first


def test_a_signature_needs_a_sign_in_that_is_recent(store, predictions):
    base = {"predictions": "p", "audit_db": "s", "key": "k" * 32, "sign_in_minutes": 10}
    config = ReviewConfig(**base, mode="oidc", roles={"ana@site": "reader"})

    def sign(minutes_ago: float, number: int):
        claims = {"is_logged_in": True, "email": "ana@site", "iat": time.time() - 60 * minutes_ago}
        ana = identify(config, {}, claims)
        return record_act(
            store, read_index(predictions), ana, "case-c", "sign", session="s", number=number, details="[]"
        )

    with pytest.raises(ActRejected, match="Sign in again"):
        sign(11, 1)
    assert store.read_events() == []
    assert sign(9, 2).facts["proof"].startswith("signed in at 20")


@pytest.mark.parametrize(
    ("mode", "proof"),
    [("local", "none: local mode has no sign-in"), ("proxy", "named by the proxy in X-Forwarded-User")],
)
def test_a_mode_without_a_sign_in_of_its_own_says_so(mode, proof):
    config = ReviewConfig(
        predictions="p", audit_db="s", key="k" * 32, mode=mode, reviewer="ana", proxy_secret="s" * 16,
        roles={"ana": "reader"},
    )  # fmt: skip
    ana = identify(config, {"X-Forwarded-User": "ana", "X-Proxy-Secret": "s" * 16}, {})
    assert ana.proof == proof and ana.signs_until is None
