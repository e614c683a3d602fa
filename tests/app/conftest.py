"""Fixtures that serve the app and open a browser."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks._browser import answering, free
from benchmarks.reviewers import SECRET, USER
from medssl.review.access.reviewers import ReviewConfig
from medssl.review.event_store import EventStore
from tests.helpers.app_client import make_client

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    url: str
    store: EventStore
    process: subprocess.Popen


@pytest.fixture
def access(predictions, tmp_path):
    return ReviewConfig(
        predictions=str(predictions), audit_db=str(tmp_path / "review.sqlite"), reviewer="ana", key="k" * 32
    )


@pytest.fixture
def app_config(access, monkeypatch):
    """The configuration `access`, in the environment of the app."""
    for name, value in access.to_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(ROOT))
    return access


@pytest.fixture
def client(app_config):
    """A client of the app that answers errors of the server instead of raising them."""
    with make_client(app_config, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def serve(predictions: Path, *options: str):
    port = free()
    store = predictions.parent / "served.sqlite"
    command = [sys.executable, "-m", "medssl.cli", "review", str(predictions), "--port", str(port)]
    command += ["--audit-db", str(store), "--reviewer", "ana", *options]
    with subprocess.Popen(command, cwd=predictions.parent, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health", process)
            yield Served(f"http://127.0.0.1:{port}", EventStore(store), process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(served_predictions):
    with serve(served_predictions) as running:
        yield running


@pytest.fixture(scope="module")
def proxied_server(served_predictions, tmp_path_factory):
    """The app behind a proxy: its address, its port, the file of the event log and the file of its log."""
    tmp_path = tmp_path_factory.mktemp("proxied")
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "roles.yaml").write_text("ana: senior")
    log, port = tmp_path / "log.txt", free()
    command = [sys.executable, "-m", "medssl.cli", "review", str(served_predictions), "--port", str(port)]
    command += [
        "--audit-db",
        str(tmp_path / "s.sqlite"),
        "--proxy-header",
        USER,
        "--roles",
        str(tmp_path / "roles.yaml"),
    ]
    command += ["--proxy-secret-file", str(tmp_path / "secret")]
    with log.open("w") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process:
        try:
            answering(port)
            yield f"http://127.0.0.1:{port}", port, tmp_path / "s.sqlite", log
        finally:
            process.kill()


@pytest.fixture
def browser(chromium):
    yield chromium
    for context in chromium.contexts:
        context.close()


def wait_for(url: str, process: subprocess.Popen, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server did not answer at {url}")
