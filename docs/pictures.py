"""Takes the pictures of the review app for the docs: python docs/pictures.py (needs Chromium)."""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from medssl.review.event import Act
from medssl.review.predictions import read_findings, read_index
from medssl.review.store import Store, beside

HERE = Path(__file__).parent
PORT = 8620
COMPLETE = "async (node) => { while (!node.viewer.complete) await new Promise((go) => setTimeout(go, 200)) }"
PRIOR = 3  # a case whose patient was there before
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Every page and state of the app, as a first reader meets them on phantom predictions."""
    with tempfile.TemporaryDirectory() as folder, _served(Path(folder) / "phantoms") as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 920})
        page.set_default_timeout(120_000)
        _opening(page, url)
        _take(page, url, "worklist", "Read next case")
        page.get_by_role("button", name="Read next case").click()
        _viewer(page, "case")
        _viewer(page, "uncertainty", "q")
        _viewer(page, "body", "qs")
        page.goto(f"{url}/case?case={PRIOR}")
        _viewer(page, "prior", "c")
        _readers(Path(folder) / "phantoms")
        _take(page, url, "locks", "open by dan")
        _take(page, f"{url}/case?case=1", "signed", "Signed 20")
        _take(page, f"{url}/agreement", "agreement", "judged")
        browser.close()


def _opening(page: Page, url: str) -> None:
    """What stands on the screen while Streamlit's own code is still on its way."""
    page.route("**/static/js/**", lambda route: route.abort())
    page.goto(url)
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / "pictures" / "opening.png")
    page.unroute("**/static/js/**")


def _viewer(page: Page, name: str, keys: str = "") -> None:
    """The case page, once its images are there, after some keys."""
    page.locator(".mv-verdict").first.wait_for()
    page.locator(".mv").evaluate(COMPLETE)
    page.mouse.move(700, 5)
    page.wait_for_timeout(2000)
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(4000)
    page.screenshot(path=HERE / "pictures" / f"{name}.png")


def _take(page: Page, url: str, name: str, shown: str) -> None:
    page.goto(url)
    page.get_by_text(shown).first.wait_for(timeout=60_000)
    page.wait_for_timeout(4000)
    page.screenshot(path=HERE / "pictures" / f"{name}.png")


def _readers(predictions: Path) -> None:
    """Ana and eve accept everything, ben rejects what the model doubts; all sign two cases. Dan opens the last one."""
    index, store = read_index(predictions), Store(beside(predictions))
    place = {"session": "dan", "number": 1, "case": index.cases[-1], "reviewer": "dan", "role": "reader"}
    store.record(Act.model_validate(place | {"action": "open"}))
    for reader in ("ana", "ben", "eve"):
        for case in index.cases[:2]:
            said = [
                ("reject" if reader == "ben" and finding.score < 0.7 else "accept", finding.id)
                for finding in read_findings(index.case(case))
            ]
            for n, (action, finding) in enumerate([*said, ("sign", "")]):
                place = {"session": f"{reader}-{case}", "number": n, "case": case, "reviewer": reader, "role": "reader"}
                store.record(Act.model_validate(place | {"action": action, "finding": finding}))


@contextmanager
def _served(predictions: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "medssl.cli", "review", str(predictions), "--demo", "--reviewer", "ana"]
    url = f"http://127.0.0.1:{PORT}"
    with subprocess.Popen([*command, "--port", str(PORT)]) as process:
        try:
            while process.poll() is None and not _answers(url):
                time.sleep(0.5)
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
