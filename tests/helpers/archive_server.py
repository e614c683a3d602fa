"""A DICOMweb archive on loopback: Orthanc with a user, in folders of its own, and its answers on demand."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "reader", "Qwertzpass"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def run_orthanc(folder):
    """Yields the address of the DICOMweb service of a new archive; skips the test where Orthanc is missing."""
    if not shutil.which("Orthanc") or not PLUGIN.exists():
        pytest.skip("needs Orthanc (`apt-get install orthanc orthanc-dicomweb`)")
    port = free_port()
    options = {
        "HttpPort": port, "DicomPort": free_port(), "StorageDirectory": str(folder), "IndexDirectory": str(folder),
        "Plugins": [str(PLUGIN)], "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
        "RemoteAccessAllowed": False, "DicomServerEnabled": False, "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(options))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/system", process, folder / "log")
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url, process, log):
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if requests.get(url, auth=(USER, PASSWORD), timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def write_netrc(path, monkeypatch):
    """Makes the user and the password of the archive known, as ~/.netrc does."""
    path.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    return path


def cut_body(body):
    """The connection breaks after two thirds of the answer."""
    return body[: 2 * len(body) // 3]


class FaultyProxy:
    """An HTTP server before an archive that answers in its place where `fault` says so.

    Attributes:
        fault: Called with the path and the number of requests of it so far; returns None to pass the request on, a
            status, or a function that changes the body of the answer.
        requests: The path and the headers of all requests.
    """

    def __init__(self, target, fault=lambda path, count: None):
        self.fault, self.requests = fault, []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, content):
                path = self.path.partition("?")[0]
                fault = proxy.fault(self.path, sum(p.partition("?")[0] == path for p, _ in proxy.requests))
                proxy.requests.append((self.path, dict(self.headers)))
                status, kind, body = (fault, "text/plain", b"") if isinstance(fault, int) else self.forward(content)
                length = len(body)
                if callable(fault):
                    body = fault(body)
                    length = length if fault is cut_body else len(body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def forward(self, content):
                headers = {n: v for n, v in self.headers.items() if n in ("Accept", "Content-Type")}
                method = "GET" if content is None else "POST"
                root = target.removesuffix("/dicom-web")
                response = requests.request(
                    method, root + self.path, headers=headers, data=content, auth=(USER, PASSWORD), timeout=60
                )
                return response.status_code, response.headers["Content-Type"], response.content

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"

    def __enter__(self):
        Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
