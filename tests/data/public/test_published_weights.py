"""Fetching weights: complete and with the right checksum, or one line, against a mirror on this machine."""

import hashlib
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from medssl import cli
from medssl.data.public import published_weights
from medssl.data.public.published_weights import PUBLISHED

NAME = "openmind-mae-resenc"
BODY = bytes(range(256)) * 99


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without a log."""

    def log_message(self, *words):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """The address of a mirror that holds a checkpoint under the paths of the hub."""
    weights = replace(PUBLISHED[NAME], sha256=hashlib.sha256(BODY).hexdigest())
    monkeypatch.setitem(published_weights.PUBLISHED, NAME, weights)
    path = tmp_path / "mirror" / weights.repository / "resolve" / "main" / weights.file
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(tmp_path / "mirror"))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(tmp_path, url: str, name: str = NAME) -> int:
    return cli.run("fetch-weights", [name, "--out", str(tmp_path / "weights"), "--url", url])


def test_a_checkpoint_arrives_with_its_licence_and_the_next_command(mirror, tmp_path, capsys):
    assert fetch(tmp_path, mirror) == 0
    path = tmp_path / "weights" / f"{NAME}.pth"
    assert path.read_bytes() == BODY
    printed = capsys.readouterr().out
    assert f"next: medssl import-weights {path} --licence CC-BY-4.0 --out runs/{NAME}" in printed


def test_a_checkpoint_that_is_there_is_not_requested_again(mirror, tmp_path):
    assert fetch(tmp_path, mirror) == 0
    assert fetch(tmp_path, "http://127.0.0.1:9") == 0


def test_another_checksum_is_refused_and_leaves_nothing(mirror, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(published_weights.PUBLISHED, NAME, replace(PUBLISHED[NAME], sha256="0" * 64))
    assert fetch(tmp_path, mirror) == 2
    error = capsys.readouterr().err
    assert "its SHA256 is" in error and error.count("\n") == 1
    assert not list((tmp_path / "weights").iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [(NAME, "cannot be downloaded"), ("openmind", "no weights of that name; choose one of openmind-mae-resenc")],
)
def test_no_network_and_no_such_name_are_one_line(tmp_path, capsys, name, text):
    assert fetch(tmp_path, "http://127.0.0.1:9", name) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_every_entry_has_a_full_checksum_and_a_licence():
    assert all(len(weights.sha256) == 64 and weights.licence for weights in PUBLISHED.values())
