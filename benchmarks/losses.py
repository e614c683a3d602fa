"""Losses: strokes and signatures through outages, two windows and kills at random moments; none may be lost or false.

python -m benchmarks.losses [--repeats 3] [--kills 50]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from benchmarks._browser import CHROMIUM, FLAGS, answering, free
from benchmarks.reviewers import SECRET, USER, front
from medssl.inference import phantom_predictions as phantoms
from medssl.io import nifti
from medssl.predictions_folder import LABELS, read_findings, read_index
from medssl.review.corrected_labels import apply_reading
from medssl.review.event_store import EventStore
from medssl.review.reading import Reading

READERS = ("ana", "ben")
WAIT_S = 120
STROKE = """(root, [from, length]) => {
  const { editor } = root.viewer.state;
  editor.beginStroke();
  for (let n = from; n < from + length; n++) editor.setLabel(n, 1);
  return root.viewer.reading.finishStroke("brush");
}"""
SCREEN = """root => [...root.viewer.state.overlay.data.entries()].filter(([, label]) => label).map(([n]) => n)"""
READY = "root => Boolean(root.viewer.complete && root.viewer.state.editable && root.viewer.state.editor)"


class Server:
    """The review app behind proxies that sign each reader in; it can be killed and started again."""

    def __init__(self, place: Path, predictions: Path) -> None:
        self.place, self.predictions, self.port = place, predictions, free()
        self.database = place / "verdicts.sqlite"
        (place / "roles.yaml").write_text("".join(f"{name}: reader\n" for name in READERS))
        (place / "secret").write_text(SECRET)
        (place / "secret").chmod(0o600)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        words = ["--audit-db", str(self.database), "--port", str(self.port), "--roles", str(self.place / "roles.yaml")]
        words += ["--proxy-header", USER, "--proxy-secret-file", str(self.place / "secret")]
        command = [sys.executable, "-m", "medssl.cli", "review", str(self.predictions), *words]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        answering(self.port)

    def kill(self) -> None:
        """Ends the server at once, without a chance to save anything."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def pause(self, seconds: float) -> None:
        """Lets the server answer nothing for a while, as a network that swallows all packets."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.process.send_signal(signal.SIGCONT)


@dataclass
class ReviewScene:
    """A server, the doors of its readers and a browser; each scene gets a case of its own."""

    server: Server
    doors: dict[str, int]
    browser: Browser
    number: int = 0
    contexts: list[BrowserContext] = field(default_factory=list)

    def begin(self) -> None:
        """Closes the windows of the scene before, and goes on to the next case."""
        for context in self.contexts:
            context.close()
        self.contexts.clear()
        self.number += 1

    @property
    def case(self) -> str:
        """The identifier of the case of the scene."""
        return read_index(self.server.predictions).cases[self.number - 1]

    def context(self) -> BrowserContext:
        """A browser with a storage of its own."""
        context = self.browser.new_context(viewport={"width": 1500, "height": 920})
        context.set_default_timeout(WAIT_S * 1000)
        self.contexts.append(context)
        return context

    def url(self, reader: str = "ana") -> str:
        """The address of the app for a reader."""
        return f"http://127.0.0.1:{self.doors[reader]}"

    def open(self, reader: str = "ana", context: BrowserContext | None = None) -> Page:
        """A window of a reader with the case, ready to be drawn on."""
        page = (context or self.context()).new_page()
        page.on("dialog", lambda dialog: dialog.accept())
        self.show(page, reader)
        return page

    def show(self, page: Page, reader: str = "ana") -> None:
        """Opens the case in a window."""
        for _ in range(10):
            with suppress(Error):  # the server has just started
                page.goto(f"{self.url(reader)}/case?case={self.number}")
                break
        wait_until(page, lambda: page.locator(".mv").count() == 1 and page.locator(".mv").evaluate(READY))

    def read(self, reader: str = "ana") -> Reading:
        """What is stored of a reader's reading of the case."""
        return EventStore(self.server.database).load_snapshot().get_reading(self.case, reader)

    def is_screen_record(self, page: Page, reader: str = "ana") -> bool:
        """Whether the mask in a window is the predicted one with the stored strokes."""
        folder = self.server.predictions / self.case
        labels = nifti.read(folder / LABELS, label=True)
        after = apply_reading(labels, read_findings(folder), self.read(reader)).reorient("RAS")
        record = after.voxels.ravel(order="F")
        return bool(page.locator(".mv").evaluate(SCREEN) == np.flatnonzero(record).tolist())

    def restart(self) -> None:
        """Kills the server and starts it again."""
        self.server.kill()
        self.server.start()


def wait_until(page: Page, condition: Callable[[], bool], seconds: float = WAIT_S) -> bool:
    """Waits for a condition; returns whether it came true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(Error):  # the page may be in the middle of a load
            if condition():
                return True
        page.wait_for_timeout(100)
    return False


def draw(page: Page, start: int, length: int = 6) -> None:
    """Draws a stroke of some voxels."""
    wait_until(page, lambda: page.locator(".mv").evaluate(READY))
    page.locator(".mv").evaluate(STROKE, [start, length])


def is_saved(page: Page) -> bool:
    """Whether the window says that everything is saved."""
    return page.locator(".mv-saved").inner_text() == "All saved"


def settle(page: Page) -> None:
    """Waits until the window says that everything is saved."""
    wait_until(page, lambda: is_saved(page))


def accept_all(bench: ReviewScene, page: Page) -> None:
    """Accepts every finding, and waits until that is stored."""
    for _ in read_findings(bench.server.predictions / bench.case):
        page.locator(".mv-accept").click()
    settle(page)


Outcome = tuple[int, int, bool]  # strokes drawn, strokes stored, whether every window shows the record


def outcome(bench: ReviewScene, num_drawn: int, *windows: Page, reader: str = "ana") -> Outcome:
    """Compares what was drawn with what is stored and shown."""
    for window in windows:
        settle(window)
    return num_drawn, len(bench.read(reader).strokes), all(bench.is_screen_record(page, reader) for page in windows)


def kill_after_stroke(bench: ReviewScene) -> Outcome:
    """Kill -9 right after a stroke; restart, no reload"""
    page = bench.open()
    draw(page, 100)
    bench.restart()
    return outcome(bench, 1, page)


def kill_between_strokes(bench: ReviewScene) -> Outcome:
    """A stroke stored, kill -9, another stroke; restart, no reload"""
    page = bench.open()
    draw(page, 100)
    settle(page)
    bench.server.kill()
    draw(page, 200)
    bench.server.start()
    return outcome(bench, 2, page)


def reload_while_away(bench: ReviewScene) -> Outcome:
    """A stroke while the server is down, reload, then start"""
    page = bench.open()
    draw(page, 100)
    settle(page)
    bench.server.kill()
    draw(page, 200)
    with suppress(Error):
        page.reload(timeout=3000)
    bench.server.start()
    bench.show(page)
    return outcome(bench, 2, page)


def black_hole(bench: ReviewScene) -> Outcome:
    """The server answers nothing for 20 s"""
    page = bench.open()
    assert bench.server.process is not None
    bench.server.process.send_signal(signal.SIGSTOP)
    draw(page, 100)
    page.wait_for_timeout(20_000)
    bench.server.process.send_signal(signal.SIGCONT)
    return outcome(bench, 1, page)


def network_cut(bench: ReviewScene) -> Outcome:
    """The browser has no network for 20 s"""
    page = bench.open()
    page.context.set_offline(True)
    draw(page, 100)
    page.wait_for_timeout(20_000)
    page.context.set_offline(False)
    return outcome(bench, 1, page)


def two_readers(bench: ReviewScene) -> Outcome:
    """Two readers draw on one case, one takes a stroke back"""
    ana, ben = bench.open("ana"), bench.open("ben")
    draw(ana, 100)
    draw(ben, 300)
    draw(ana, 200)
    ana.keyboard.press("z")
    first, second = outcome(bench, 1, ana), outcome(bench, 1, ben, reader="ben")
    return 2, first[1] + second[1], first[2] and second[2]


def two_tabs(bench: ReviewScene) -> Outcome:
    """Two tabs of one reader; undo in the first after a stroke in the second"""
    first = bench.open()
    draw(first, 100)
    settle(first)
    second = bench.open(context=first.context)
    draw(second, 300)
    settle(second)
    first.bring_to_front()
    first.locator(".mv").focus()
    first.keyboard.press("z")
    settle(first)
    wait_until(first, lambda: bench.is_screen_record(first) and bench.is_screen_record(second), 30)
    is_own = [stroke.mask for stroke in bench.read().strokes] != [] and len(bench.read().strokes) == 1
    return outcome(bench, 1, first, second) if is_own else (1, 0, False)


def sign_at_once(bench: ReviewScene) -> Outcome:
    """A stroke, then Sign off at once, network well"""
    page = bench.open()
    accept_all(bench, page)
    draw(page, 100)
    page.get_by_role("button", name="Sign off").click()
    wait_until(page, lambda: bench.read().signed_at is not None)
    return outcome(bench, 1, page)


def sign_after_outage(bench: ReviewScene) -> Outcome:
    """A stroke during an outage, Sign off right after the restart"""
    page = bench.open()
    accept_all(bench, page)
    bench.server.kill()
    draw(page, 100)
    bench.server.start()
    page.get_by_role("button", name="Sign off").click()
    wait_until(page, lambda: bench.read().signed_at is not None)
    return outcome(bench, 1, page)


def leave_after_outage(bench: ReviewScene) -> Outcome:
    """A stroke during an outage, Worklist right after the restart (leaving anyway), tab closed, opened again"""
    page = bench.open()
    bench.server.kill()
    draw(page, 100)
    bench.server.start()
    page.get_by_role("link", name="Worklist").first.click()
    leave = page.get_by_role("button", name="Leave now")
    wait_until(page, lambda: leave.is_visible() or not page.locator(".mv").count(), 10)
    if leave.is_visible():
        leave.click()
    page.wait_for_timeout(300)
    context = page.context
    page.close()
    return outcome(bench, 1, bench.open(context=context))


SCENES: tuple[Callable[[ReviewScene], Outcome], ...] = (
    kill_after_stroke, kill_between_strokes, reload_while_away, black_hole, network_cut, two_readers, two_tabs,
    sign_at_once, sign_after_outage, leave_after_outage,
)  # fmt: skip


def kill_at_random(bench: ReviewScene, kills: int, rng: random.Random) -> tuple[int, int, bool, int]:
    """Kills the server at random moments while two readers draw; returns the outcome and the faults of the chain."""
    windows = {reader: bench.open(reader) for reader in READERS}
    num_drawn = dict.fromkeys(READERS, 0)
    for kill in range(kills):
        for reader in rng.choices(READERS, k=rng.randint(1, 4)):
            draw(windows[reader], 1000 + 8 * sum(num_drawn.values()))
            num_drawn[reader] += 1
            windows[reader].wait_for_timeout(rng.uniform(0, 400))
        bench.restart()
        print(f"kill {kill + 1}: {sum(num_drawn.values())} strokes", file=sys.stderr, flush=True)
    outcomes = [outcome(bench, num_drawn[reader], page, reader=reader) for reader, page in windows.items()]
    faults = EventStore(bench.server.database).find_faults()
    return sum(num_drawn.values()), sum(o[1] for o in outcomes), all(o[2] for o in outcomes), len(faults)


def write_cases(place: Path, num_cases: int) -> Path:
    """Returns a predictions folder with one phantom under many names."""
    phantoms.write_phantom_predictions(place / "phantom", 1)
    name = read_index(place / "phantom").cases[0]
    folder = place / "predictions"
    index = (place / "phantom" / "index.json").read_text()
    names = [f"case-{n + 1:03}" for n in range(num_cases)]
    for case in names:
        (folder / case).mkdir(parents=True)
        for path in (place / "phantom" / name).iterdir():
            if path.suffix == ".json":
                (folder / case / path.name).write_text(path.read_text().replace(name, case))
            else:
                (folder / case / path.name).hardlink_to(path)
    entry = json.loads(index)
    cases = [entry["cases"][0] | {"id": case, "patient": case} for case in names]
    (folder / "index.json").write_text(json.dumps(entry | {"cases": cases, "requested": names}))
    return folder


@contextmanager
def run_bench(predictions: Path, place: Path, browser: Browser) -> Iterator[ReviewScene]:
    """A running server with the doors of its readers."""
    server = Server(place, predictions)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        doors = {name: stack.enter_context(front(server.port, name)) for name in READERS}
        bench = ReviewScene(server, doors, browser)
        stack.callback(lambda: [context.close() for context in bench.contexts])
        yield bench


def main() -> None:
    """Plays every scene and prints one row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        place = Path(folder)
        predictions = write_cases(place, len(SCENES) * args.repeats + 1)
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        with run_bench(predictions, place, browser) as bench:
            print(
                f"Each scene {args.repeats} times.\n\n| scene | strokes | stored | screen = record |\n|---|---|---|---|"
            )
            for scene in SCENES:
                outcomes = []
                for _ in range(args.repeats):
                    bench.begin()
                    outcomes.append(scene(bench))
                num_drawn, stored = sum(o[0] for o in outcomes), sum(o[1] for o in outcomes)
                same = sum(o[2] for o in outcomes)
                print(f"| {scene.__doc__} | {num_drawn} | {stored} | {same} of {args.repeats} |", flush=True)
            bench.begin()
            num_drawn, stored, is_same, faults = kill_at_random(bench, args.kills, random.Random(0))
            same = "yes" if is_same else "**no**"
            print(f"| {args.kills} kills at random moments, two readers | {num_drawn} | {stored} | {same} |")
            print(f"\nFaults of the chain of events: {faults}.")
        browser.close()


if __name__ == "__main__":
    main()
