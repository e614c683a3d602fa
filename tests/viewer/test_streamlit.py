"""The viewer inside Streamlit: events reach Python once, in order, and outlive the server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

STROKE = """node => {
  const { editor } = node.viewer.state;
  editor.beginStroke();
  [7, 8].forEach((at) => editor.setLabel(at, 1));
  node.viewer.reading.finishStroke("brush");
}"""


class Server:
    """One Streamlit process that can be killed and started again at the same address."""

    def __init__(self, folder):
        self.folder = folder
        (folder / ".streamlit").mkdir()
        (folder / ".streamlit" / "config.toml").write_text("[browser]\ngatherUsageStats = false\n")
        self.store = folder / "events.jsonl"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "page:app",
            "--port",
            str(self.port),
            "--app-dir",
            str(Path(__file__).parent),
        ]
        environment = os.environ | {"VIEWER_TEST_STORE": str(self.store)}
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, env=environment
        )
        for _ in range(1200):  # a busy machine takes its time
            assert self.process.poll() is None, "the server ended"
            try:
                return urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2).read()
            except OSError:
                time.sleep(0.25)
        raise TimeoutError("the server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def events(self):
        return [json.loads(line) for line in self.store.read_text().splitlines()] if self.store.exists() else []


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_verdicts_and_strokes_outlive_a_killed_server(server, chromium):
    page = chromium.new_page(viewport={"width": 1400, "height": 760})
    foreign = []
    page.on(
        "request", lambda r: foreign.append(r.url) if not r.url.startswith((server.url, "blob:", "data:")) else None
    )
    page.goto(server.url)
    root = page.locator(".mv")
    root.wait_for(timeout=60_000)
    wait(lambda: root.evaluate("node => Boolean(node.viewer.state.editor)"))

    page.keyboard.press("y")
    wait(lambda: page.locator(".mv-saved").inner_text() == "All saved")
    assert [(e["kind"], e["finding"], e["decision"]) for e in server.events()] == [("verdict", "one", "accept")]

    server.kill()
    page.keyboard.press("x")
    root.evaluate(STROKE)
    wait(lambda: page.locator(".mv-saved").inner_text() == "Saving 2")
    server.start()
    wait(lambda: page.locator(".mv-saved").inner_text() == "All saved")
    assert [(e["kind"], e["seq"]) for e in server.events()] == [("verdict", 1), ("verdict", 2), ("stroke", 3)]
    assert server.events()[-1]["runs"] == [[7, 2, 1]]
    assert page.locator("em[data-decision=reject]").count() == 1
    assert foreign == []
    page.close()


def wait(true, seconds=120):
    """Until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)
