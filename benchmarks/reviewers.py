"""Reviewers: how soon a verdict is stored for one reader, and for eight who click for a minute; none may be lost.

python -m benchmarks.reviewers [--seconds 60]
"""

import argparse
import os
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

from benchmarks._browser import CHROMIUM, FLAGS, row, serve_review
from medssl.inference import phantom_predictions as phantoms
from medssl.review.event import DECISIONS
from medssl.review.event_store import EventStore

READERS = 8
PAUSE_MS, LONG_MS = 500, 300_000
SECRET, USER = "a secret of this benchmark", "X-User"
# Gives verdicts by key until the time is over; for each the milliseconds until the server said that it is stored.
CLICKS = """async (root, [seconds, pause]) => {
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  const keys = ["y", "x", "u"];
  const times = [];
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; await rest(pause)) {
    const { reading } = root.viewer;
    const began = performance.now();
    root.dispatchEvent(new KeyboardEvent("keydown", { key: keys[times.length % 3], bubbles: true, composed: true }));
    while (reading.outbox.waiting.length) await rest(5);
    times.push(performance.now() - began);
  }
  return times;
}"""
START = f"(root, asked) => {{ root.clicked = ({CLICKS})(root, asked); }}"


def main() -> None:
    """Measures and prints one line a budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        phantoms.write_phantom_predictions(place / "predictions", READERS)
        port, process = stack.enter_context(serving(place))
        doors = [stack.enter_context(front(port, name)) for name in readers()]
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        pages = [open_case(browser.new_context().new_page(), door, n + 1) for n, door in enumerate(doors)]
        (alone,) = click_all(pages[:1], min(seconds, 15))
        before = cpu_s(process)
        together = click_all(pages, seconds)
        used_s = cpu_s(process) - before
        browser.close()
        verdicts = [e for e in EventStore(place / "verdicts.sqlite").read_events() if e.action in DECISIONS]
        num_verdicts = len(alone) + sum(map(len, together))
        faults = len(EventStore(place / "verdicts.sqlite").find_faults())
    times = [ms / 1000 for reader_ms in together for ms in reader_ms]
    print(
        f"{READERS} signed-in readers, each in a browser window of their own, {seconds:.0f} s, {len(times)} verdicts\n"
    )
    print("| | measured | budget |\n|---|---|---|")
    row("verdict acknowledged, one reader, p95 s", share(sorted(ms / 1000 for ms in alone), 0.95), 1)
    row(f"verdict acknowledged, {READERS} readers at once, median s", share(sorted(times), 0.5), 2)
    row(f"verdict acknowledged, {READERS} readers at once, p95 s", share(sorted(times), 0.95), 2)
    row("verdicts lost", num_verdicts - len({(e.session, e.number) for e in verdicts}), 0)
    row("faults of the chain", faults, 0)
    busy = used_s / seconds
    print(f"\nWhile all clicked the app took {busy:.2f} of a core; the browsers share {os.cpu_count()} with it.")


def share(ordered: list[float], part: float) -> float:
    """The value that this part of an ordered list does not exceed."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def cpu_s(process: int) -> float:
    """The CPU seconds that a process has taken, all of its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def readers() -> list[str]:
    """The names of those who sign in."""
    return [f"reader-{n + 1}" for n in range(READERS)]


def open_case(page: Page, port: int, case: int) -> Locator:
    """The viewer on a page that shows a case, whole and ready for verdicts."""
    page.goto(f"http://127.0.0.1:{port}/case?case={case}", timeout=LONG_MS)
    viewer = page.locator(".mv")
    viewer.wait_for(timeout=LONG_MS)
    while not viewer.evaluate("root => root.viewer.complete && root.viewer.state.selected"):
        page.wait_for_timeout(100)
    return viewer


def click_all(viewers: list[Locator], seconds: float) -> list[list[float]]:
    """What each reader measured, all of them clicking at the same time."""
    for viewer in viewers:
        viewer.evaluate(START, [seconds, PAUSE_MS])
    return [viewer.evaluate("root => root.clicked") for viewer in viewers]


@contextmanager
def serving(place: Path) -> Iterator[tuple[int, int]]:
    """The review app as `medssl review` serves it behind a proxy; gives its port and its process."""
    (place / "roles.yaml").write_text("".join(f"{name}: reader\n" for name in readers()))
    (place / "secret").write_text(SECRET)
    (place / "secret").chmod(0o600)
    proxy = ["--proxy-header", USER, "--proxy-secret-file", str(place / "secret")]
    with serve_review(place, ["--roles", str(place / "roles.yaml"), *proxy]) as server:
        yield server


@contextmanager
def front(port: int, name: str) -> Iterator[int]:
    """A proxy that signs everybody in as `name`; gives its port. One request a connection keeps it simple."""
    signed_in = f"\r\n{USER}: {name}\r\nX-Proxy-Secret: {SECRET}\r\n".encode()

    class Door(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (part := self.request.recv(1 << 16)):
                    return
                head += part
            head = head.replace(b"\r\n", signed_in, 1).replace(b"Connection: keep-alive", b"Connection: close", 1)
            with socket.create_connection(("127.0.0.1", port)) as inner:
                inner.sendall(head)
                back = threading.Thread(target=carry, args=(inner, self.request), daemon=True)
                back.start()
                carry(self.request, inner)
                back.join()

    with Doors(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


class Doors(socketserver.ThreadingTCPServer):
    """One thread a connection, as the pages keep theirs for as long as they are open."""

    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def handle_error(self, *_: object) -> None:
        """Stays silent: a connection to a server that was killed is refused."""


def carry(source: socket.socket, sink: socket.socket) -> None:
    """Forwards the bytes of one side until it closes."""
    with suppress(OSError):
        while part := source.recv(1 << 16):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
