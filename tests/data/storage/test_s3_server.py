"""A store in an S3-compatible server on this machine: uploaded, trained from, evicted, and asked when it is away."""

import socket
from dataclasses import replace

import pytest
import torch

from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.storage.upload import upload_store
from medssl.errors import BadInput
from tests.helpers.toy_training import write_store

REASON = "needs s3fs and moto (`pip install s3fs 'moto[server]'`)"


@pytest.fixture
def server(monkeypatch):
    """An S3 server with the bucket `scans`, at the address that s3fs finds in the environment."""
    pytest.importorskip("s3fs", reason=REASON)
    moto = pytest.importorskip("moto.server", reason=REASON)
    threaded = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    threaded.start()
    host, port = threaded.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("scans")
    yield threaded
    threaded.stop()


def read_crops(manifest):
    data = CropDataset(manifest, IntensityNormalization(), (8, 8, 8), labelled=True)
    return torch.stack([data[n].x for n in range(8)])


@pytest.mark.slow
def test_a_store_in_s3_is_trained_from_until_the_server_is_away(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSSL_CACHE", str(tmp_path / "cache"))
    manifest = Manifest.read(write_store(tmp_path / "store"))
    upload_store(manifest, "s3://scans/store", tmp_path / "remote")
    remote = Manifest.read(tmp_path / "remote" / "manifest.csv")
    assert remote.cases[0].image == "s3://scans/store/c0.b2nd"
    assert torch.equal(read_crops(remote), read_crops(manifest))
    size = (manifest.folder / "c0.b2nd").stat().st_size
    monkeypatch.setenv("MEDSSL_CACHE", str(tmp_path / "small"))
    monkeypatch.setenv("MEDSSL_CACHE_GB", str(1.5 * size / 1e9))
    assert torch.equal(read_crops(remote), read_crops(manifest))
    assert 1 <= len(list((tmp_path / "small").iterdir())) < 2 * len(manifest.cases)
    server.stop()
    with socket.socket() as probe:
        assert probe.connect_ex(server.get_host_and_port()) != 0
    missing = replace(remote, cases=(replace(remote.cases[0], image="s3://scans/store/other.b2nd"),))
    with pytest.raises(BadInput, match=r"s3://scans/store/other\.b2nd: cannot be read \(.*\); check address, access"):
        read_crops(missing)
