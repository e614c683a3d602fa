"""What the benchmarks of the app share: Chromium, a free port, a server that answers, and rows of a table."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def row(name: str, measured: float, budget: float) -> None:
    """One row of the table."""
    print(f"| {name} | {measured:.3g} | {budget} {'' if measured <= budget else '**over**'} |")


@contextmanager
def serve_review(place: Path, options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Runs `medssl review` on the predictions in a folder, with its record there; gives its port and its process."""
    port = free()
    words = ["--audit-db", str(place / "verdicts.sqlite"), "--port", str(port), *options]
    command = [sys.executable, "-m", "medssl.cli", "review", str(place / "predictions"), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            answering(port)
            yield port, server.pid
        finally:
            server.kill()


def answering(port: int) -> None:
    """Waits for the server; a refusal is an answer too."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the review app did not start")


def free() -> int:
    """An unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
