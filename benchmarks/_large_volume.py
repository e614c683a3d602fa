"""How `medssl review` and Chromium open, scroll and correct a CT of 512x512x600."""

import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page

from benchmarks._browser import row, serve_review
from medssl.inference.connected_findings import extract_findings
from medssl.inference.prediction_writer import PredictionWriter
from medssl.inference.streaming.case_stream import Prediction
from medssl.review.event_store import EventStore
from medssl.volume import Volume

NAMES = {1: "nodule"}
LONG_MS = 600_000
NUM_STROKES = 5
# Milliseconds from the first movement of a ball of 20 mm over 100 voxels until the server has stored the stroke.
STROKE = """async (root, offset) => {
  const viewer = root.viewer;
  viewer.store.set({ tool: "brush", ballBrush: true, radius_mm: 10 });
  const pane = viewer.panes[0];
  const { cursor } = viewer.state;
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  const at = (i) => {
    const box = pane.top.getBoundingClientRect();
    const [x, y] = pane.frame.toPixel([cursor[0] + i, cursor[1] + offset, cursor[2]]);
    return { clientX: box.left + x / pane.ratio, clientY: box.top + y / pane.ratio, pointerId: 1, bubbles: true };
  };
  pane.top.setPointerCapture = () => {};
  const began = performance.now();
  pane.top.dispatchEvent(new PointerEvent("pointerdown", at(-50)));
  for (let i = -40; i <= 50; i += 10) {
    pane.top.dispatchEvent(new PointerEvent("pointermove", at(i)));
    await new Promise(requestAnimationFrame);
  }
  pane.top.dispatchEvent(new PointerEvent("pointerup", at(50)));
  while (viewer.reading.outbox.waiting.length) await rest(5);
  return performance.now() - began;
}"""
# Seconds since the page was asked for, when a condition is met.
WAIT = """root => new Promise((done) => {
  const check = () => {
    const state = root.viewer?.state;
    if (state && (CONDITION)) done(performance.now() / 1000);
    else setTimeout(check, 10);
  };
  check();
})"""


def measure_large_volume(browser: Browser, volumes: dict[str, Volume], redraws: str) -> None:
    """Measures a case of these volumes in the served app and prints one line a budget.

    Args:
        browser: Chromium.
        volumes: The `image` and the `labels`.
        redraws: JavaScript that returns sorted milliseconds of a number of redraws of a viewer.
    """
    print(f"\nCT {'x'.join(map(str, volumes['image'].shape))} in the served app\n")
    print("| | measured | budget |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_case(place / "predictions", volumes)
        volumes.clear()
        with serve_review(place, ["--reviewer", "ana"]) as (port, process):
            page = browser.new_page(viewport={"width": 1600, "height": 900})
            first, complete = open_case(page, port)
            strokes = [page.locator(".mv").evaluate(STROKE, 30 * n) for n in range(NUM_STROKES)]
            times = page.locator(".mv").evaluate(redraws, 200)  # moves the crosshair
            peak = read_peak_mb(process)
            page.close()
        events = EventStore(place / "verdicts.sqlite").read_events()
    row("first planes from a new browser, s", first, 5)
    row("complete, s", complete, 60)
    row("redraw of three planes, p95 ms", times[190], 60)
    row("20 mm ball over 100 voxels, drawn and stored, median s", float(np.median(strokes)) / 1000, 1)
    row("peak memory of the server, MB", peak, 600)
    row("strokes lost", NUM_STROKES - sum(event.action == "stroke" for event in events), 0)


def write_case(folder: Path, volumes: dict[str, Volume]) -> None:
    """Writes a predictions folder with one case."""
    image, labels = volumes["image"], volumes["labels"]
    sure = np.broadcast_to(np.float32(1), labels.shape)
    findings = extract_findings(labels, sure, None, "large", NAMES)
    confidence = Volume(labels.voxels.astype(np.float32), labels.affine, "probability")
    writer = PredictionWriter.create(folder, NAMES, {"run": "benchmark", "weights_sha256": "none: simulated"})
    writer.add("large", image, Prediction(labels, confidence, findings))


def open_case(page: Page, port: int) -> tuple[float, float]:
    """Seconds from the address until the planes through the finding are drawn, and until every voxel is here."""
    page.goto(f"http://127.0.0.1:{port}/case?case=1", timeout=LONG_MS)
    viewer = page.locator(".mv")
    drawn = "state.volume?.loaded[state.cursor[2]] && state.overlay?.loaded[state.cursor[2]]"
    first, complete = (
        viewer.evaluate(WAIT.replace("CONDITION", condition), timeout=LONG_MS)
        for condition in (drawn, "root.viewer.complete && state.editor")
    )
    return float(first), float(complete)


def read_peak_mb(process: int) -> float:
    """The largest memory that a process has had in use."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1000
