"""Takes the screenshots for the documentation: python docs/pictures.py [DEMO] (needs Chromium).

With the folder of a finished `medssl demo`, it takes those of its reports, and otherwise those of the review app.
"""

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
from medssl.review.event_store import EventStore, get_default_database

HERE = Path(__file__).parent
PORT = 8620
COMPLETE = "async (node) => { while (!node.viewer.complete) await new Promise((go) => setTimeout(go, 200)) }"
DEMO = ("--demo", "--reviewer", "ana")
PRIOR = 3  # number of a case with a prior study
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


REPORTS = {"ingest": "store/report.html", "training": "runs/nodules/report.html"}  # of a demo
FROC = "predictions/nodules/evaluation/figures/froc.png"


def main(demo: str = "") -> None:
    """Takes a screenshot of every page and state of the app, on phantom predictions, or of the reports of a demo."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 920})
        page.set_default_timeout(120_000)
        if demo:
            _take_reports(page, Path(demo))
        else:
            predictions = Path(folder) / "phantoms"
            _take_pages(page, predictions)
            _take_sign_in(page, predictions)
            _take_errors(page, predictions)
        browser.close()


def _take_reports(page: Page, demo: Path) -> None:
    for name, path in REPORTS.items():
        page.goto((demo / path).absolute().as_uri())
        page.wait_for_timeout(2000)
        page.screenshot(path=HERE / "pictures" / f"{name}.png")
    shutil.copy(demo / FROC, HERE / "pictures" / "evaluation.png")


def _take_pages(page: Page, predictions: Path) -> None:
    with _serve_app(predictions, *DEMO) as (url, _):
        _take_opening(page, url)
        _take(page, url, "worklist", "Read next case")
        page.get_by_role("button", name="Read next case").click()
        _take_viewer(page, "case")
        _take_viewer(page, "keys", "?")
        _take_viewer(page, "uncertainty", "Escape", "q")
        _take_viewer(page, "body", "q", "s")
        page.goto(f"{url}/case?case={PRIOR}")
        _take_viewer(page, "prior", "c")
        _record_readings(predictions)
        _take(page, url, "locks", "open by dan")
        _take(page, f"{url}/case?case=1", "signed", "Signed 20")
        _take(page, f"{url}/agreement", "agreement", "Fleiss")


def _take_sign_in(page: Page, predictions: Path) -> None:
    """Takes screenshots of the sign-in page and of the locked page of an idle reader."""
    secrets, roles = predictions.with_name("secrets.toml"), predictions.with_name("roles.yaml")
    roles.write_text("ana@review.site: senior")
    auth = {"redirect_uri": f"http://127.0.0.1:{PORT}/oauth2callback", "cookie_secret": "c" * 32, "client_id": "medssl",
            "client_secret": "s" * 16, "server_metadata_url": "http://127.0.0.1:1/openid"}  # fmt: skip
    secrets.write_text("[auth]\n" + "".join(f'{name} = "{value}"\n' for name, value in auth.items()))
    secrets.chmod(0o600)
    with _serve_app(predictions, "--oidc", str(secrets), "--roles", str(roles)) as (url, _):
        _take(page, url, "sign-in", "Not signed in")
    with _serve_app(predictions, "--reviewer", "ana", "--idle-minutes", "0.2") as (url, _):
        _take(page, url, "paused", "Paused")


def _take_errors(page: Page, predictions: Path) -> None:
    """Takes screenshots of an unreachable server, an unreadable image, a failed page, and no open case."""
    index = read_index(predictions)
    with _serve_app(predictions, *DEMO) as (url, server):
        page.goto(f"{url}/case?case={PRIOR}")
        page.locator(".mv").evaluate(COMPLETE)
        server.send_signal(signal.SIGSTOP)
        _take_viewer(page, "unsaved", "y")
        server.send_signal(signal.SIGCONT)
        page.get_by_text("All saved").wait_for()
        _take(page, f"{url}/case?case=99", "no-case", "No case is open")
        (index.case_folder(index.cases[PRIOR - 1]) / IMAGE).unlink()
        _take(page, f"{url}/case?case={PRIOR}", "no-image", "cannot be shown")
        (index.case_folder(index.cases[PRIOR - 1]) / FINDINGS).write_text("[{}]")
        _take(page, f"{url}/case?case={PRIOR}", "failed", "This page failed")
        _take(page, url, "lost", "Findings missing or damaged")


def _take_opening(page: Page, url: str) -> None:
    """Takes a screenshot of the page before Streamlit's own scripts have loaded."""
    page.route("**/static/js/**", lambda route: route.abort())
    page.goto(url)
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / "pictures" / "opening.png")
    page.unroute("**/static/js/**")


def _take_viewer(page: Page, name: str, *keys: str) -> None:
    """Waits for the images of the case page, presses some keys and takes a screenshot."""
    page.locator(".mv-verdict").first.wait_for()
    page.locator(".mv").evaluate(COMPLETE)
    page.mouse.move(700, 5)
    page.wait_for_timeout(2000)
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(4000)
    page.screenshot(path=HERE / "pictures" / f"{name}.png")


def _take(page: Page, url: str, name: str, text: str) -> None:
    """Opens a page, waits for a text and takes a screenshot."""
    page.goto(url)
    page.get_by_text(text).first.wait_for(timeout=60_000)
    page.wait_for_timeout(4000)
    page.screenshot(path=HERE / "pictures" / f"{name}.png")


def _record_readings(predictions: Path) -> None:
    """Records three readings of two cases, in which only Ben rejects uncertain findings; Dan opens the last case."""
    index, store = read_index(predictions), EventStore(get_default_database(predictions))
    fields = {"session": "dan", "number": 1, "case": index.cases[-1], "reviewer": "dan", "role": "reader"}
    store.record(Act.model_validate(fields | {"action": "open"}))
    for reader in ("ana", "ben", "eve"):
        for case in index.cases[:2]:
            verdicts = [
                ("reject" if reader == "ben" and finding.score < 0.7 else "accept", finding.id)
                for finding in read_findings(index.case_folder(case))
            ]
            for n, (action, finding) in enumerate([*verdicts, ("sign", "")]):
                fields = {
                    "session": f"{reader}-{case}",
                    "number": n,
                    "case": case,
                    "reviewer": reader,
                    "role": "reader",
                }
                store.record(Act.model_validate(fields | {"action": action, "finding": finding}))


@contextmanager
def _serve_app(predictions: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Runs the review app; yields its address and its process."""
    command = [sys.executable, "-m", "medssl.cli", "review", str(predictions), *options]
    url = f"http://127.0.0.1:{PORT}"
    with subprocess.Popen([*command, "--port", str(PORT)]) as process:
        try:
            while process.poll() is None and not _is_ready(url):
                time.sleep(0.5)
            yield url, process
        finally:
            process.kill()


def _is_ready(url: str) -> bool:
    """Returns whether the server answers."""
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
