"""Takes the pictures of the review app for the docs: python docs/pictures.py (needs Chromium)."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from medssl.predictions_folder import FINDINGS, IMAGE, read_findings, read_index
from medssl.review.event import Act
from medssl.review.event_store import Store, beside

HERE = Path(__file__).parent
PORT = 8620
COMPLETE = "async (node) => { while (!node.viewer.complete) await new Promise((go) => setTimeout(go, 200)) }"
DEMO = ("--demo", "--reviewer", "ana")
PRIOR = 3  # a case whose patient was there before
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Every page and state of the app, as a first reader meets them on phantom predictions."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 920})
        page.set_default_timeout(120_000)
        predictions = Path(folder) / "phantoms"
        _pages(page, predictions)
        _doors(page, predictions)
        _troubles(page, predictions)
        browser.close()


def _pages(page: Page, predictions: Path) -> None:
    with _served(predictions, *DEMO) as (url, _):
        _opening(page, url)
        _take(page, url, "worklist", "Read next case")
        page.get_by_role("button", name="Read next case").click()
        _viewer(page, "case")
        _viewer(page, "keys", "?")
        _viewer(page, "uncertainty", "Escape", "q")
        _viewer(page, "body", "q", "s")
        page.goto(f"{url}/case?case={PRIOR}")
        _viewer(page, "prior", "c")
        _readers(predictions)
        _take(page, url, "locks", "open by dan")
        _take(page, f"{url}/case?case=1", "signed", "Signed 20")
        _take(page, f"{url}/agreement", "agreement", "judged")


def _doors(page: Page, predictions: Path) -> None:
    """Who has not signed in, and who has left."""
    secrets, roles = predictions.with_name("secrets.toml"), predictions.with_name("roles.yaml")
    roles.write_text("ana@review.site: senior")
    said = {"redirect_uri": f"http://127.0.0.1:{PORT}/oauth2callback", "cookie_secret": "c" * 32, "client_id": "medssl",
            "client_secret": "s" * 16, "server_metadata_url": "http://127.0.0.1:1/openid"}  # fmt: skip
    secrets.write_text("[auth]\n" + "".join(f'{name} = "{value}"\n' for name, value in said.items()))
    secrets.chmod(0o600)
    with _served(predictions, "--oidc", str(secrets), "--roles", str(roles)) as (url, _):
        _take(page, url, "sign-in", "Not signed in")
    with _served(predictions, "--reviewer", "ana", "--idle-minutes", "0.2") as (url, _):
        _take(page, url, "paused", "Paused")


def _troubles(page: Page, predictions: Path) -> None:
    """A server that went away, an image that cannot be read, a page that fails, and no case."""
    index = read_index(predictions)
    with _served(predictions, *DEMO) as (url, server):
        page.goto(f"{url}/case?case={PRIOR}")
        page.locator(".mv").evaluate(COMPLETE)
        server.send_signal(signal.SIGSTOP)
        _viewer(page, "unsaved", "y")
        server.send_signal(signal.SIGCONT)
        page.get_by_text("All saved").wait_for()
        _take(page, f"{url}/case?case=99", "no-case", "No case is open")
        (index.case(index.cases[PRIOR - 1]) / IMAGE).unlink()
        _take(page, f"{url}/case?case={PRIOR}", "no-image", "cannot be shown")
        (index.case(index.cases[PRIOR - 1]) / FINDINGS).write_text("[{}]")
        _take(page, f"{url}/case?case={PRIOR}", "failed", "This page failed")
        _take(page, url, "lost", "findings gone")


def _opening(page: Page, url: str) -> None:
    """What stands on the screen while Streamlit's own code is still on its way."""
    page.route("**/static/js/**", lambda route: route.abort())
    page.goto(url)
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / "pictures" / "opening.png")
    page.unroute("**/static/js/**")


def _viewer(page: Page, name: str, *keys: str) -> None:
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
def _served(predictions: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The app's address, and its process."""
    command = [sys.executable, "-m", "medssl.cli", "review", str(predictions), *words]
    url = f"http://127.0.0.1:{PORT}"
    with subprocess.Popen([*command, "--port", str(PORT)]) as process:
        try:
            while process.poll() is None and not _answers(url):
                time.sleep(0.5)
            yield url, process
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
