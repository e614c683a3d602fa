"""An image is served only under a link that is complete, valid and not expired."""

import gzip
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from medssl.io import nifti
from medssl.io.slabs import slab_file
from medssl.io.slabs.slab_file import SlabFile
from medssl.review.access.signed_links import Link
from medssl.review.event import Act
from medssl.review.event_store import EventStore
from medssl.review.mask_runs import pack_runs
from medssl.review.slabs import slab_files
from medssl.viewer import wire


def token(access, number=1, kind="image", event=0, seconds=60, key=None) -> str:
    return Link(number, kind, event, int(time.time()) + seconds).sign(key or access.key)


@pytest.mark.parametrize("kind", ["image", "labels", "probability"])
def test_the_served_image_equals_the_predicted_one(client, access, predictions, kind):
    where = f"/api/volume/{token(access, kind=kind)}"
    header = client.get(f"{where}/header.json").json()
    arrived = wire.decode(header, client.get(f"{where}/voxels").content)
    stored = nifti.read(predictions / "case-a" / f"{kind}.nii.gz").reorient("RAS")
    scale = 255 if kind == "probability" else 1
    assert np.allclose(arrived.voxels * scale, stored.voxels, atol=0.01)
    assert np.allclose(arrived.affine, stored.affine)
    assert arrived.unit == {"image": "HU", "labels": "label", "probability": "probability"}[kind]


def test_slabs_join_to_the_whole_volume_and_are_compressed(client, access):
    where = f"/api/volume/{token(access)}"
    header = client.get(f"{where}/header.json").json()
    whole = client.get(f"{where}/voxels")
    parts = [client.get(f"{where}/voxels?from={k}&to={k + 8}").content for k in (0, 8, 16)]
    assert b"".join(parts) == whole.content
    assert len(whole.content) == np.prod(header["shape"]) * 2
    assert whole.headers["content-encoding"] == "gzip"
    assert whole.headers["cache-control"] == "private, no-store"


def test_a_slab_is_sent_as_it_is_stored(client, access, predictions, monkeypatch):
    """Nothing is unpacked or compressed for it."""
    client.get(f"/api/volume/{token(access)}/header.json")
    slabs = SlabFile(predictions / "case-a" / "image.slabs")
    monkeypatch.setattr(slab_file, "igzip", None)
    (planes,) = slabs.table.ranges
    with client.stream("GET", f"/api/volume/{token(access)}/voxels?from={planes[0]}&to={planes[1]}") as answer:
        assert b"".join(answer.iter_raw()) == slabs.read_packed(*planes)


def test_predictions_without_slab_files_get_them_once(client, access, predictions, monkeypatch):
    where = f"/api/volume/{token(access)}"
    shown = client.get(f"{where}/voxels").content
    image = predictions / "case-a" / "image.slabs"
    assert shown == SlabFile(image).read_planes(0, SlabFile(image).table.shape[2]).tobytes(order="F")
    monkeypatch.setattr(slab_files, "convert", None)
    assert client.get(f"{where}/header.json").status_code == 200


def test_an_outdated_or_damaged_slab_file_is_made_again(client, access, predictions):
    image = predictions / "case-a" / "image.nii.gz"
    client.get(f"/api/volume/{token(access)}/header.json")
    changed = nifti.read(image)
    nifti.write(replace(changed, voxels=changed.voxels + 1), image)
    (predictions / "case-a" / "labels.slabs").write_bytes(b"damaged")
    arrived = client.get(f"/api/volume/{token(access)}/voxels").content
    assert (np.frombuffer(arrived, "<i2") == (changed.reorient("RAS").voxels + 1).ravel(order="F")).all()
    assert client.get(f"/api/volume/{token(access, kind='labels')}/header.json").status_code == 200


def test_a_read_only_folder_gets_its_slab_files_elsewhere(client, access, predictions, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert client.get(f"/api/volume/{token(access)}/header.json").status_code == 200
    assert not (predictions / "case-a" / "image.slabs").exists()


def test_a_range_is_a_part_of_the_compressed_bytes(client, access):
    where = f"/api/volume/{token(access)}/voxels"

    def ask(requested: str) -> tuple[int, bytes, str]:
        with client.stream("GET", where, headers={"Range": requested}) as answer:
            return answer.status_code, b"".join(answer.iter_raw()), answer.headers.get("content-range", "")

    with client.stream("GET", where) as answer:
        body = b"".join(answer.iter_raw())
    assert gzip.decompress(body)
    assert ask("bytes=2-9") == (206, body[2:10], f"bytes 2-9/{len(body)}")
    assert ask("bytes=5-") == (206, body[5:], f"bytes 5-{len(body) - 1}/{len(body)}")
    assert ask("bytes=-4") == (206, body[-4:], f"bytes {len(body) - 4}-{len(body) - 1}/{len(body)}")
    assert ask(f"bytes={len(body)}-")[0] == 416
    assert ask("lines=1-2")[0] == 200


@pytest.mark.parametrize("end", ["header.json", "voxels"])
def test_an_invalid_link_serves_no_image(client, access, end):
    whole = token(access)
    bad = [
        "x", whole[:-1], whole.replace("image", "labels"), whole.replace("1.", "2.", 1),
        token(access, seconds=-1), token(access, key="x" * 32), token(access, number=99), token(access, number=0),
    ]  # fmt: skip
    for wrong in bad:
        answer = client.get(f"/api/volume/{wrong}/{end}")
        assert (answer.status_code, answer.text) == (404, "this link is invalid or has expired")
        assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    "path", ["../../index.json", "..%2f..%2findex.json", "%2e%2e/%2e%2e/etc/passwd", "....//index.json"]
)
def test_no_path_leads_out(client, path):
    assert client.get(f"/api/volume/{path}/voxels").status_code == 404
    assert client.get(f"/api/volume/{path}").status_code == 404


@pytest.mark.parametrize("query", ["from=-1&to=2", "from=3&to=3", "from=0&to=99", "from=a&to=2", "from=9&to=2"])
def test_planes_outside_the_volume_are_rejected(client, access, query):
    assert client.get(f"/api/volume/{token(access)}/voxels?{query}").status_code == 404


def test_a_link_shows_the_strokes_of_one_reader_up_to_an_event(client, access, predictions):
    """The voxel of the stroke, in RAS order with i fastest, is where the wire format puts it."""
    store = EventStore(access.audit_db)

    def stroke(number: int, reviewer: str, run: list[int]) -> int:
        fields = {"session": "s", "case": "case-a", "reviewer": reviewer, "role": "reader", "action": "stroke"}
        return store.record(Act(**fields, number=number, mask=pack_runs([run]))).id

    first = stroke(1, "ana", [0, 3, 2])
    stroke(2, "ben", [10, 3, 2])
    second = stroke(3, "ana", [5, 1, 1])

    def labels(event: int) -> np.ndarray:
        where = f"/api/volume/{token(access, kind='findings', event=event)}"
        return np.frombuffer(client.get(f"{where}/voxels").content, np.uint8)[:14]

    assert labels(0).tolist() == [0] * 14
    assert labels(first).tolist() == [2] * 3 + [0] * 11
    assert labels(second).tolist() == [2] * 3 + [0, 0, 1] + [0] * 8
