"""Proposals of an nnInteractive server: what is sent, what comes back, and what a reader reads when it is away.

The server is a small one of its protocol, which answers with the voxels around the prompts.
"""

import json
import sys
import threading
import time

import numpy as np
import pytest
import uvicorn
from scipy import ndimage
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks._browser import free
from medssl import cli
from medssl.errors import BadInput
from medssl.review.assist.drawn_slices import NO_SLICES, DrawnSlices
from medssl.review.assist.nninteractive import InteractiveServer
from medssl.review.assist.proposal import AssistImage, apply_proposal
from medssl.review.assist.scene import Clicks
from medssl.volume import Volume

serialization = pytest.importorskip("nnInteractive.inference.remote.serialization")

SHAPE = (12, 14, 10)


class FakeServer:
    """Grows what it is told to include by a voxel, cuts out what it is told to exclude, and counts what it gets."""

    def __init__(self):
        self.port, self.calls, self.expired = free(), [], 0
        self.image, self.inside, self.outside = None, None, None
        paths = (
            "claim",
            "release",
            "heartbeat",
            "capabilities",
            "set_image",
            "set_target_buffer",
            "reset_interactions",
        )
        prompts = ("add_initial_seg", "add_lasso", "add_point")
        routes = [Route(f"/{path}", self.answer, methods=["GET", "POST"]) for path in paths]
        routes += [Route(f"/{prompt}_interaction", self.answer, methods=["POST"]) for prompt in prompts]
        config = uvicorn.Config(Starlette(routes=routes), port=self.port, log_level="critical")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *error):
        self.server.should_exit = True
        self.thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request):
        path, body = request.url.path.strip("/"), await request.body()
        if path not in ("heartbeat", "release"):
            self.calls.append(path)
        if path == "claim":
            return JSONResponse({"lease_token": "t", "idle_timeout_seconds": 600, "liveness_timeout_seconds": 60})
        if path == "capabilities":
            return JSONResponse(CAPABILITIES)
        if self.expired and path == "reset_interactions":
            self.expired -= 1
            return JSONResponse({"detail": "gone"}, 410)
        if path == "set_image":
            self.image, self.meta = serialization.unpack_array(body), json.loads(request.headers["X-Meta"])
            return JSONResponse({"original_image_shape": self.image.shape})
        if path == "reset_interactions":
            self.inside, self.outside = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
        if not path.startswith("add_"):
            return JSONResponse({})
        return self.predict(path, body, request.headers)

    def predict(self, path, body, headers):
        is_point = path == "add_point_interaction"
        meta = json.loads(body) if is_point else json.loads(headers["X-Meta"])
        if is_point:
            (self.inside if meta["include_interaction"] else self.outside)[tuple(meta["coordinates"])] = True
        else:
            self.inside |= serialization.unpack_array(body) > 0
        if not meta["run_prediction"]:
            return Response(headers={"X-Meta": json.dumps({"ran_prediction": False})})
        grown = ndimage.binary_dilation(self.inside) & ~ndimage.binary_dilation(self.outside)
        box = [[0, n] for n in SHAPE]
        meta = json.dumps({"ran_prediction": True, "bbox": box})
        return Response(serialization.pack_array(grown.astype(np.uint8)), headers={"X-Meta": meta})


CAPABILITIES = {
    "supported_interactions": {}, "channel_mapping": {}, "num_interaction_channels": 7, "supports_initial_label": True,
    "supports_zero_shot_label_refinement": True, "preferred_scribble_thickness": 2, "interaction_decay": 0.9,
    "inference_session_version": "2.6.0", "license": "CC BY-NC-SA 4.0",
}  # fmt: skip


@pytest.fixture
def server():
    with FakeServer() as server:
        yield server


@pytest.fixture
def image():
    voxels = np.random.default_rng(3).normal(0, 50, SHAPE).astype(np.float32)
    return AssistImage.from_volume(Volume(voxels, np.diag([1.5, 1.0, 2.0, 1.0]), "HU"))


def click(*points):
    return Clicks(np.array(points, np.int64).reshape(-1, 3), np.zeros((0, 3), np.int64))


def test_slices_clicks_and_mask_are_sent_and_the_answer_comes_back(server, image):
    mask = np.zeros(SHAPE, bool)
    mask[3:7, 4:8, 5] = True
    desk = InteractiveServer(server.url)
    clicks = Clicks(np.array([[9, 10, 2]]), np.array([[4, 5, 6]]))
    after = apply_proposal(mask, desk.propose_mask(image, mask, clicks, DrawnSlices(along_k=(5,))))
    expected = ndimage.binary_dilation(mask | (np.indices(SHAPE) == np.reshape([9, 10, 2], (3, 1, 1, 1))).all(0))
    excluded = ndimage.binary_dilation((np.indices(SHAPE) == np.reshape([4, 5, 6], (3, 1, 1, 1))).all(0))
    expected &= ~excluded
    expected[:, :, 5] = mask[:, :, 5]  # drawn by the reader
    np.testing.assert_array_equal(after, expected)
    np.testing.assert_array_equal(server.image[0], image.volume.voxels)
    assert server.meta["image_properties"]["spacing"] == [1.5, 1.0, 2.0] and desk.version == "2.6.0"
    prompts = ["add_initial_seg_interaction", "add_lasso_interaction", "add_point_interaction", "add_point_interaction"]
    assert [call for call in server.calls if call.startswith("add_")] == prompts


def test_an_image_is_sent_once_and_a_session_that_expired_begins_again(server, image):
    desk = InteractiveServer(server.url)
    for expired, num_images in ((0, 1), (0, 1), (1, 2)):
        server.expired = expired
        after = desk.propose_mask(image, np.zeros(SHAPE, bool), click((5, 5, 5)), NO_SLICES).mask
        assert after.sum() == 7 and server.calls.count("set_image") == num_images


def test_a_server_that_is_away_is_named_and_comes_back(image):
    empty = np.zeros(SHAPE, bool)
    desk = InteractiveServer("http://127.0.0.1:9")
    with pytest.raises(BadInput, match="the nnInteractive server gives no proposal"):
        desk.propose_mask(image, empty, click((5, 5, 5)), NO_SLICES)
    with pytest.raises(BadInput, match="draw a slice of the finding, or click inside"):
        desk.propose_mask(image, empty, Clicks.none(), DrawnSlices(along_k=(3,)))
    with FakeServer() as server:
        desk = InteractiveServer(server.url)
        desk.propose_mask(image, empty, click((5, 5, 5)), NO_SLICES)
    with pytest.raises(BadInput, match="gives no proposal"):
        desk.propose_mask(image, empty, click((5, 5, 5)), NO_SLICES)


def test_an_address_that_is_none_is_refused_before_the_start(predictions, capsys):
    assert cli.run("review", [str(predictions), "--nninteractive", "gpu-box:8000"]) == 2
    assert "write http://HOST:PORT" in capsys.readouterr().err


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nnInteractive.inference.remote", None)
    monkeypatch.delitem(sys.modules, "nnInteractive.inference.remote.remote_session", raising=False)
    with pytest.raises(BadInput, match=r"pip install 'medssl\[nninteractive\]'"):
        InteractiveServer("http://127.0.0.1:9")
