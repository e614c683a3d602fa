"""A training reads its volumes from an object store through a cache of limited size."""

import os
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from medssl import cli
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.storage.object_cache import ObjectCache
from medssl.data.storage.upload import upload_store
from medssl.errors import BadInput
from tests.helpers.toy_training import write_store


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDSSL_CACHE", str(tmp_path / "cache"))
    return Manifest.read(write_store(tmp_path / "store"))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server on this machine with everything below the folder of the test."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def cut_crops(manifest):
    data = CropDataset(manifest, IntensityNormalization(), (8, 8, 8), labelled=True)
    return torch.stack([data[n].x for n in range(8)]), torch.stack([data[n].label for n in range(8)])


def test_crops_from_an_object_store_are_those_from_the_disk(manifest, tmp_path, capsys):
    url = f"file://{tmp_path}/bucket"
    assert cli.run("upload", [str(manifest.folder / "manifest.csv"), url, "--out", str(tmp_path / "remote")]) == 0
    assert f"4 cases are at {url}" in capsys.readouterr().out
    remote = Manifest.read(tmp_path / "remote" / "manifest.csv")
    assert remote.cases[0].image == f"{url}/c0.b2nd" and not list((tmp_path / "remote").glob("*.b2nd"))
    for from_disk, from_store in zip(cut_crops(manifest), cut_crops(remote), strict=True):
        assert torch.equal(from_disk, from_store)
    assert len(list((tmp_path / "cache").iterdir())) == 8
    with pytest.raises(BadInput, match=r"c0\.b2nd: is in an object store"):
        remote.path(remote.cases[0])


def test_a_web_server_is_read_once(manifest, tmp_path, server):
    cases = (replace(case, image=f"{server}/store/{case.image}", label=None) for case in manifest.cases)
    data = CropDataset(Manifest(tuple(cases), tmp_path), IntensityNormalization(), (8, 8, 8))
    crop = data[0].x
    (tmp_path / "store").rename(tmp_path / "gone")
    assert torch.equal(CropDataset(data.store.manifest, IntensityNormalization(), (8, 8, 8))[0].x, crop)
    with pytest.raises(BadInput, match=r"http://.*b2nd: cannot be read \(.*\); check address, access and network"):
        data[1]


def test_the_cache_evicts_what_was_unused_for_longest(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.b2nd").write_bytes(bytes(100))
    cache = ObjectCache(tmp_path / "cache", 250)
    urls = [f"file://{tmp_path}/{n}.b2nd" for n in range(4)]
    paths = [cache.fetch(url) for url in urls[:2]]
    for age, path in enumerate(paths):
        os.utime(path, (1000 - age, 1000 - age))
    assert cache.fetch(urls[0]) == paths[0]  # used again, so that the other one is older
    paths += [cache.fetch(url) for url in urls[2:3]]
    assert [path.exists() for path in paths] == [True, False, True]
    assert cache.fetch(urls[1]).exists() and len(list(cache.folder.iterdir())) == 2
    tiny = ObjectCache(tmp_path / "tiny", 10)
    assert tiny.fetch(urls[3]).exists()


def test_an_interrupted_upload_continues_with_what_is_missing(manifest, tmp_path):
    bucket = tmp_path / "bucket"
    upload_store(manifest, f"file://{bucket}", tmp_path / "first")
    (bucket / "c1.b2nd").write_bytes(b"torn")
    untouched = (bucket / "c0.b2nd").stat().st_mtime_ns
    upload_store(manifest, f"file://{bucket}", tmp_path / "second")
    assert (bucket / "c1.b2nd").read_bytes() == (manifest.folder / "c1.b2nd").read_bytes()
    assert (bucket / "c0.b2nd").stat().st_mtime_ns == untouched


@pytest.mark.parametrize("url", ["ftp://x/a.b2nd", "s3::file://x", "simplecache::file://x", "shell://rm"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(BadInput, match="not an address of a file; give one with s3, gs"):
        ObjectCache(tmp_path, 10).fetch(url)


def test_bad_settings_and_targets_are_refused(manifest, tmp_path):
    with pytest.raises(BadInput, match="MEDSSL_CACHE_GB=much: not a size"):
        ObjectCache.from_environment({"MEDSSL_CACHE_GB": "much"})
    with pytest.raises(BadInput, match="bucket: not an address of a folder"):
        upload_store(manifest, str(tmp_path / "bucket"), tmp_path / "remote")
    with pytest.raises(BadInput, match="exists already; choose another --out"):
        upload_store(manifest, f"file://{tmp_path}/bucket", manifest.folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        upload_store(manifest, f"file://{tmp_path}/file", tmp_path / "remote")
