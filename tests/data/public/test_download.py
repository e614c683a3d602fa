"""Fetching: right or refused, against a mirror on this machine."""

import hashlib
import io
import socket
import tarfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from medssl import cli
from medssl.data.public import download as fetching
from medssl.data.public.download import DECATHLON, Archive, download_dataset
from medssl.errors import BadInput

NAME, TASK = "hippocampus", "Task04_Hippocampus"
BODY = bytes(range(256)) * 40


class Mirror(SimpleHTTPRequestHandler):
    """Serves a folder, and the rest of a file if a range is requested; `cut` breaks answers off."""

    cut: int | None = None
    requests: list[str | None] = []

    def do_GET(self):
        self.requests.append(self.headers.get("Range"))
        path = self.translate_path(self.path)
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                body = file.read()
        except OSError:
            return self.send_error(404)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : self.cut])
        return None

    def log_message(self, *words):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The address of a mirror with one archive, whose published MD5 is that of a good one."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    publish(folder, monkeypatch, {f"{TASK}/dataset.json": b"{}", f"{TASK}/imagesTr/a.nii.gz": BODY})
    monkeypatch.setattr(Mirror, "requests", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def publish(folder, monkeypatch, members):
    with tarfile.open(folder / f"{TASK}.tar", "w") as tar:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            if name.endswith("link"):
                info.type, info.linkname, info.size = tarfile.SYMTYPE, "../../outside", 0
            tar.addfile(info, io.BytesIO(body))
    md5 = hashlib.md5((folder / f"{TASK}.tar").read_bytes()).hexdigest()
    monkeypatch.setitem(DECATHLON, NAME, Archive(TASK, md5))


def quiet(have, of):
    pass


def test_a_set_is_unpacked_and_the_second_time_nothing_is_requested(mirror, tmp_path, capsys):
    for _ in range(2):
        assert cli.run("fetch", [NAME, "--out", str(tmp_path / "data"), "--url", mirror + "/"]) == 0
        assert str(tmp_path / "data" / TASK) in capsys.readouterr().out
    assert (tmp_path / "data" / TASK / "imagesTr/a.nii.gz").read_bytes() == BODY
    assert [p.name for p in (tmp_path / "data").iterdir()] == [TASK]
    assert Mirror.requests == [None]


def test_monai_downloads_where_the_network_allows(mirror, tmp_path, monkeypatch):
    """MONAI's downloader fetches the archive, checks its MD5, and requests nothing a second time."""
    from monai.apps import utils

    requests, real = [], utils.download_url
    monkeypatch.setattr(
        utils, "download_url", lambda url, *at, **how: requests.append((url, how)) or real(url, *at, **how)
    )
    assert cli.run("fetch", [NAME, "--out", str(tmp_path / "data"), "--url", mirror]) == 0
    ((url, how),) = requests
    assert url == f"{mirror}/{TASK}.tar" and (how["hash_val"], how["hash_type"]) == (DECATHLON[NAME].md5, "md5")
    assert Mirror.requests == [None] and (tmp_path / "data" / TASK / "imagesTr/a.nii.gz").read_bytes() == BODY


def test_what_monai_cannot_fetch_whole_is_fetched_in_blocks(mirror, tmp_path, monkeypatch, capsys):
    """A download that breaks off leaves nothing of MONAI's try, and all it got of ours; no part is fetched twice."""
    monkeypatch.setattr(Mirror, "cut", 5000)
    how = [NAME, "--out", str(tmp_path / "data"), "--url", mirror]
    assert cli.run("fetch", how) == 2 and "broke off after 5000 of" in capsys.readouterr().err
    monkeypatch.setattr(Mirror, "cut", None)
    assert cli.run("fetch", how) == 0
    assert Mirror.requests == [None, None, "bytes=5000-"]
    assert (tmp_path / "data" / TASK / "imagesTr/a.nii.gz").read_bytes() == BODY


def test_a_server_that_falls_silent_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert cli.run("fetch", [NAME, "--out", str(tmp_path / "data"), "--url", url]) == 2
    assert socket.getdefaulttimeout() is None


def test_a_download_that_broke_off_is_continued(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(Mirror, "cut", 5000)
    with pytest.raises(BadInput, match="broke off after 5000 of"):
        download_dataset(NAME, tmp_path / "data", quiet, mirror)
    monkeypatch.setattr(Mirror, "cut", None)
    progress = []
    folder = download_dataset(NAME, tmp_path / "data", lambda have, of: progress.append((have, of)), mirror)
    assert Mirror.requests == [None, "bytes=5000-"]
    assert (folder / "imagesTr/a.nii.gz").read_bytes() == BODY and progress[-1][0] == progress[-1][1]


def test_a_download_killed_after_its_last_byte_is_used(mirror, tmp_path):
    (tmp_path / "data").mkdir()
    body = (tmp_path / "mirror" / f"{TASK}.tar").read_bytes()
    (tmp_path / "data" / f"{TASK}.tar.part").write_bytes(body)
    assert (download_dataset(NAME, tmp_path / "data", quiet, mirror) / "dataset.json").is_file()


def test_other_bytes_than_published_are_refused_and_removed(mirror, tmp_path):
    tar = tmp_path / "mirror" / f"{TASK}.tar"
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInput, match=r"its MD5 is .*, expected is"):
        download_dataset(NAME, tmp_path / "data", quiet, mirror)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside.txt", f"{TASK}/../../outside.txt", f"{TASK}/link"])
def test_a_member_that_leads_outside_is_refused(mirror, tmp_path, monkeypatch, name):
    publish(tmp_path / "mirror", monkeypatch, {f"{TASK}/dataset.json": b"{}", name: b"x"})
    with pytest.raises(BadInput, match="do not trust"):
        download_dataset(NAME, tmp_path / "far" / "data", quiet, mirror)
    assert not list(tmp_path.rglob("outside.txt"))
    assert [p.name for p in (tmp_path / "far" / "data").iterdir()] == [f"{TASK}.tar"]


def test_an_archive_that_is_none_is_refused(mirror, tmp_path, monkeypatch):
    good = (tmp_path / "mirror" / f"{TASK}.tar").read_bytes()
    for body in (b"<html>", good[:9000]):
        (tmp_path / "mirror" / f"{TASK}.tar").write_bytes(body)
        monkeypatch.setitem(DECATHLON, NAME, Archive(TASK, hashlib.md5(body).hexdigest()))
        with pytest.raises(BadInput, match="not a complete tar"):
            download_dataset(NAME, tmp_path / "data", quiet, mirror)
        assert not (tmp_path / "data" / TASK).exists()
        (tmp_path / "data" / f"{TASK}.tar").unlink()


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        (NAME, "http://127.0.0.1:9", "cannot be downloaded"),
        (NAME, "http://no-such-host.invalid", "cannot be downloaded"),
        (NAME, "nonsense", "cannot be downloaded"),
        ("kidney", "http://127.0.0.1:9", "is not a known data set"),
    ],
)
def test_without_a_network_the_error_is_one_line(tmp_path, capsys, name, url, said):
    assert cli.run("fetch", [name, "--out", str(tmp_path / "data"), "--url", url]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_what_the_server_does_not_have_is_named(mirror, tmp_path):
    with pytest.raises(BadInput, match=r"Task09_Spleen.tar: the server answers 404"):
        download_dataset("spleen", tmp_path / "data", quiet, mirror)


def test_the_table_is_the_published_one():
    monai = pytest.importorskip("monai.apps.datasets").DecathlonDataset
    assert {a.task: a.md5 for a in DECATHLON.values()} == monai.md5
    assert all(url == f"{fetching.MIRROR}/{task}.tar" for task, url in monai.resource.items())
