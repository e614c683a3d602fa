"""What the browser sends is read strictly, and becomes the act that the reader meant."""

import json

import numpy as np
import pytest

from medssl.predictions_folder import LabelDef
from medssl.review.mask_runs import unpack_runs
from medssl.review.reading import ActRejected
from medssl.review.viewer_acts import build_act_fields, parse_event

BASE = {"client": "c", "seq": 3, "at": "2026-01-01T00:00:00Z"}
LABELS = (LabelDef(1, "nodule", "#fff"),)


def fields(**event):
    return build_act_fields(parse_event(BASE | event), LABELS, lambda *key: {("b", 7): 42}.get(key))


@pytest.mark.parametrize(
    ("event", "place"),
    [
        ({"kind": "verdict", "finding": "f", "decision": "sign"}, "decision"),
        ({"kind": "verdict", "finding": "f", "decision": "bogus"}, "decision"),
        ({"kind": "verdict", "decision": "accept"}, "finding"),
        ({"kind": "deliver all"}, "kind|event"),
        ({"kind": "stroke", "runs": []}, "runs"),
        ({"kind": "stroke", "runs": [[-1, 1, 1]]}, "runs"),
        ({"kind": "stroke", "runs": [[1, 0, 1]]}, "runs"),
        ({"kind": "stroke", "runs": [[1, 1e30, 1]]}, "runs"),
        ({"kind": "stroke", "runs": [["x", 1, 1]]}, "runs"),
        ({"kind": "stroke", "runs": [[1, 1, 1]], "assist": {"engine": "x", "version": "1", "num_clicks": 1}}, "engine"),
        ({"kind": "stroke", "runs": [[1, 1, 1]], "assist": {"engine": "medssl-assist"}}, "version"),
        ({"kind": "missed", "centre_mm": [0, 0, float("nan")], "label": 1}, "centre_mm"),
        ({"kind": "measure", "finding": "f", "plane": "axial", "long": [[0, 0, 0]], "short": []}, "long"),
        ({"kind": "reopen", "seq": 0}, "seq"),
        ({"kind": "reopen", "client": "c" * 99}, "client"),
        ({"kind": "verdict", "finding": "f", "decision": "accept", "note": "x" * 5000}, "note"),
    ],
)
def test_a_malformed_event_is_refused_with_words(event, place):
    with pytest.raises(ActRejected, match=f"cannot read it .*({place})"):
        parse_event(BASE | event)


@pytest.mark.parametrize("content", [None, 3, "sign", [], {}])
def test_something_that_is_no_event_is_refused(content):
    with pytest.raises(ActRejected, match="cannot read it"):
        parse_event(content)


def test_a_proposal_that_was_kept_names_its_tool():
    tool = {"engine": "medssl-assist", "version": "1", "num_clicks": 3, "num_slices": 1}
    assert json.loads(fields(kind="stroke", runs=[[5, 2, 1]], finding="f", assist=tool)["details"]) == {"assist": tool}
    assert fields(kind="stroke", runs=[[5, 2, 1]], finding="f")["details"] == ""


def test_a_stroke_arrives_run_for_run():
    act = fields(kind="stroke", runs=[[5, 2, 1], [100, 1, 0]], finding=None, tool="brush")
    assert (act["session"], act["number"], act["finding"]) == ("c", 3, "")
    np.testing.assert_array_equal(unpack_runs(act["mask"]), [[5, 2, 1], [100, 1, 0]])


def test_an_undo_names_the_event_of_the_page_that_sent_it():
    assert fields(kind="undo", of=7, of_client="b")["target"] == 42
    assert fields(kind="undo", of=7, of_client="c")["target"] is None


def test_a_time_that_cannot_be_is_limited():
    accept = {"kind": "verdict", "finding": "f", "decision": "accept"}
    assert [fields(**accept, dwell_ms=ms)["dwell_ms"] for ms in (-5, 9, 10**12)] == [0, 9, 86_400_000]


def test_a_signature_carries_what_was_on_the_screen():
    act = fields(kind="sign", screen={"drawn": ["a-1"], "decisions": {}})
    assert (act["action"], act["seen"]) == ("sign", {"drawn": ["a-1"], "decisions": {}})
