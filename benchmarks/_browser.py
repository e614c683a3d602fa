"""What the benchmarks of the app share: Chromium, a free port, a server that answers, and rows of a table."""

import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def row(name: str, measured: float, budget: float) -> None:
    """One row of the table."""
    print(f"| {name} | {measured:.3g} | {budget} {'' if measured <= budget else '**over**'} |")


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
