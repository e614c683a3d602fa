"""The app proposes masks under a signed link, says what is wrong with a request, and learns from signed cases."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from medssl.export.encode_cases import encode_predictions
from medssl.io import nifti
from medssl.predictions_folder import LABELS, read_index
from medssl.review.access.signed_links import Link
from medssl.review.assist.drawn_slices import DrawnSlices
from medssl.review.assist.nninteractive import InteractiveServer
from medssl.review.assist.proposal import ENGINE, ENGINE_VERSION, Proposal
from medssl.review.event import Act
from medssl.review.event_store import EventStore
from tests.helpers.app_client import make_client


@pytest.fixture
def encoded(predictions):
    """Encodings of the predictions with three channels."""

    def encode(image):
        voxels = image.voxels.astype(np.float32)
        return [replace(image, voxels=np.stack([voxels, -voxels, voxels**2]))]

    return encode_predictions(read_index(predictions), encode)


def make_url(access, number=1, kind="assist", seconds=60):
    return f"/api/assist/{Link(number, kind, 0, int(time.time()) + seconds).sign(access.key)}"


def read_mask(predictions, case="case-a"):
    return nifti.read(predictions / case / LABELS, label=True).reorient("RAS").voxels > 0


def list_offsets(mask):
    return np.flatnonzero(mask.ravel(order="F")).tolist()


def test_a_click_inside_a_nodule_proposes_it(client, access, predictions):
    truth = read_mask(predictions)
    offset = list_offsets(truth)[len(list_offsets(truth)) // 4]
    answer = client.post(make_url(access), json={"label": 1, "inside": [offset]})
    assert answer.status_code == 200 and answer.headers["cache-control"] == "private, no-store"
    content = answer.json()
    assert (content["engine"], content["version"]) == (ENGINE, ENGINE_VERSION) and content["removed"] == []
    added = {n for start, length in content["added"] for n in range(start, start + length)}
    assert offset in added and len(added) == content["num_voxels"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"label": 1}, "click inside the finding first"),
        ({"label": 0, "inside": [1]}, "label"),
        ({"label": 1, "inside": [-1]}, "inside"),
        ({"label": 1, "inside": [10**9]}, "leaves the image"),
        ({"label": 1, "inside": [1], "mask": [[10**9, 1]]}, "leaves the image"),
        ({"label": 1, "inside": [1], "mask": [[3, 0]]}, "mask"),
        ({"label": 1, "inside": [0] * 501}, "inside"),
        ({"label": 1, "inside": [1], "more": 1}, "more"),
        ("text", "request for a proposal"),
    ],
)
def test_a_bad_request_is_refused_with_words(client, access, body, reason):
    answer = client.post(make_url(access), content=json.dumps(body))
    assert answer.status_code == 400 and reason in answer.json()["reason"]


def test_a_body_that_is_too_long_is_refused(client, access, monkeypatch):
    monkeypatch.setattr("app.assist_route.MAX_BYTES", 100)
    answer = client.post(make_url(access), json={"label": 1, "inside": list(range(90))})
    assert answer.status_code == 400 and "too detailed" in answer.json()["reason"]


def test_the_features_of_an_encoder_are_used_and_a_missing_case_is_named(encoded, client, access, predictions):
    body = {"label": 1, "inside": list_offsets(read_mask(predictions))[:1]}
    assert client.post(make_url(access), json=body).json()["added"]
    (encoded / "case-b.npz").unlink()
    answer = client.post(make_url(access, 2), json=body)
    assert answer.status_code == 400 and "medssl encode" in answer.json()["reason"]


def test_another_link_proposes_nothing_and_this_one_shows_no_image(client, access):
    for url in (make_url(access, kind="image"), make_url(access, seconds=-1), make_url(access)[:-1]):
        assert client.post(url, json={"label": 1, "inside": [1]}).status_code == 404
    assert client.get(make_url(access).replace("assist", "volume", 1) + "/header.json").status_code == 404


def test_a_signed_case_is_learned_from_and_forgotten_when_it_is_reopened(client, access, predictions):
    store, numbers = EventStore(access.audit_db), iter(range(1, 99))

    def act(action, finding="", **fields):
        identity = {"session": "s", "number": next(numbers), "case": "case-a", "reviewer": "ana", "role": "reader"}
        model = read_index(predictions).weights_sha256
        store.record(Act(**identity, action=action, finding=finding, model=model, **fields))

    assert client.get(make_url(access, 2)).json() == {"num_cases": 0}
    for finding in ("case-a-1-1", "case-a-1-2"):
        act("accept", finding)
    act("sign", details="[]")
    assert client.get(make_url(access, 2)).json() == {"num_cases": 1}
    (path,) = predictions.parent.glob("predictions-assist-*.npz")
    assert path.stat().st_mode & 0o777 == 0o600
    act("reopen")
    assert client.get(make_url(access, 2)).json() == {"num_cases": 0}


def test_an_nninteractive_server_makes_the_proposals_and_is_named(access, monkeypatch, predictions):
    def propose(self, image, mask, clicks, drawn):
        assert drawn == DrawnSlices(along_k=(2,))
        return Proposal((slice(None),) * 3, np.ones(mask.shape, bool))

    monkeypatch.setattr(InteractiveServer, "propose_mask", propose)
    monkeypatch.setattr(InteractiveServer, "version", "2.6.0")
    offset = list_offsets(read_mask(predictions))[0]
    with make_client(access.model_copy(update={"nninteractive": "http://127.0.0.1:9"})) as client:
        answer = client.post(make_url(access), json={"label": 1, "inside": [offset], "slices": [[2, 2]]}).json()
    assert (answer["engine"], answer["version"]) == ("nninteractive", "2.6.0")
    assert answer["num_voxels"] == read_mask(predictions).size
