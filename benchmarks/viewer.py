"""Viewer: how soon a large CT is on the screen and how fast it moves, in headless Chromium without a GPU.

python -m benchmarks.viewer [--planes 300]
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from benchmarks._browser import CHROMIUM, FLAGS, row
from benchmarks._large_volume import measure_large_volume
from medssl.viewer import component, wire
from medssl.volume import Volume

CACHED = {"Cache-Control": "public, max-age=31536000, immutable"}  # as the app serves the modules
PORT = 8899
NUM_OPENINGS = 15
LARGE_PLANES = 600
PAGE = """<!doctype html><meta charset="utf-8">{head}<style>body {{ margin: 0 }}</style><div id="host"></div>
<script type="module">
import mount from "{module}";
window.began = performance.now();
mount({{ data: {data}, parentElement: document.getElementById("host"), setTriggerValue() {{}} }});
</script>"""
DATA = {
    "volume": "/api/volume/image/header.json", "overlay": "/api/volume/labels/header.json", "probability": None,
    "labels": {"1": {"name": "nodule", "colour": "#ffb03b", "visible": True}}, "unit": "HU", "selected": "one",
    "findings": [{"id": "one", "label": 1, "name": "nodule", "centre_mm": [150, 180, 200]}], "acked": [],
    "refused": None, "drawn": [], "undoable": [],
    "editable": True, "height": 900, "key": "benchmark", "handled_events": [], "reasons": [],
}  # fmt: skip
# Milliseconds of work for each of many steps of the crosshair through all three planes.
REDRAWS = """(root, count) => {
  const v = root.viewer;
  const { shape } = v.state.volume.header;
  const times = [];
  for (let n = 0; n < count; n++) {
    v.store.set({ cursor: shape.map((size, axis) => Math.floor((size * ((n * (7 + 4 * axis)) % count)) / count)) });
    const began = performance.now();
    v.draw();
    v.panes[0].base.getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - began);
  }
  return times.sort((a, b) => a - b);
}"""


def main() -> None:
    """Measures and prints one line a budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=300)
    planes = parser.parse_args().planes
    volumes = {name: wire.encode(volume) for name, volume in chest(planes).items()}
    small = Volume(np.arange(32**3, dtype=np.int16).reshape(32, 32, 32), np.eye(4), "HU")
    volumes["small"] = wire.encode(small)
    volumes["small-labels"] = wire.encode(Volume((small.voxels > 30_000).astype(np.uint8), np.eye(4), "label"))
    with serve(volumes), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        first, complete = open_page(page)
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        times = page.locator(".mv").evaluate(REDRAWS, 200)
        print(f"CT 512x512x{planes}, headless Chromium, with its labels\n")
        print("| | measured | budget |\n|---|---|---|")
        row("first planes, s", first, 3)
        row("complete, s", complete, 12)
        row("redraw of three planes, median ms", times[100], 60)
        row("redraw of three planes, p95 ms", times[190], 60)
        row("requests while scrolling", len(requests), 0)
        page.close()
        with_preloads, without = measure_openings(browser)
        name = "opening a small case: CPU with the modules preloaded / found by their imports"
        row(name, with_preloads / without, 1)
        measure_large_volume(browser, chest(LARGE_PLANES), REDRAWS)
        browser.close()


def measure_openings(browser: Browser) -> tuple[float, float]:
    """Median CPU seconds of all processes of the browser until a small case is drawn, with preloads and without."""
    seconds: dict[str, list[float]] = {"/small": [], "/small-without": []}
    session = browser.new_browser_cdp_session()

    def read_cpu_s() -> float:
        return sum(process["cpuTime"] for process in session.send("SystemInfo.getProcessInfo")["processInfo"])

    for path in list(seconds) * NUM_OPENINGS:
        context = browser.new_context(viewport={"width": 1600, "height": 900})  # with an empty cache
        page = context.new_page()
        before = read_cpu_s()
        page.goto(f"http://127.0.0.1:{PORT}{path}")
        page.wait_for_function("document.querySelector('.mv')?.viewer.complete", timeout=120_000)
        seconds[path].append(read_cpu_s() - before)
        context.close()
    return statistics.median(seconds["/small"]), statistics.median(seconds["/small-without"])


def chest(planes: int) -> dict[str, Volume]:
    """Noise of a scanner over a body with lungs, which compresses like a scan does, and one nodule's mask."""
    rng = np.random.default_rng(0)
    x, y = np.mgrid[-1:1:512j, -1:1:512j]
    body = np.where(x**2 / 0.8 + y**2 / 0.5 < 1, 40, -1000).astype(np.int16)
    for side in (-0.4, 0.4):
        body[(x - side) ** 2 / 0.08 + y**2 / 0.22 < 1] = -850
    noise = rng.normal(0, 15, (512, 512, 8)).astype(np.int16)
    image = np.stack([body + np.roll(noise[..., k % 8], 37 * k, (0, 1)) for k in range(planes)], -1)
    labels = np.zeros(image.shape, np.uint8)
    labels[180:200, 220:240, planes // 2 : planes // 2 + 10] = 1
    affine = np.diag([0.75, 0.75, 1.0, 1.0])
    return {"image": Volume(image, affine, "HU"), "labels": Volume(labels, affine, "label")}


@contextmanager
def serve(volumes: dict[str, tuple[dict, bytes]]) -> Iterator[None]:
    """A server of the page and the volumes; slabs are compressed before the clock starts."""
    packed = cache(lambda name, start, stop: wire.compress_slab(*volumes[name], start, stop))
    for name, (header, _) in volumes.items():
        for start, stop in wire.list_slabs(header):
            packed(name, start, stop)

    def voxels(request: Request) -> Response:
        name, query = request.path_params["name"], request.query_params
        body = packed(name, int(query["from"]), int(query["to"]))
        return Response(body, headers={"Content-Encoding": "gzip"}, media_type="application/octet-stream")

    def frontend_file(request: Request) -> Response:
        name = request.path_params["name"]
        media_type = component.MEDIA_TYPES[Path(name).suffix]
        return Response(component.load_frontend()[name], headers=CACHED, media_type=media_type)

    module = f"{component.frontend_folder()}/{component.VIEWER_ENTRY}"

    def build_page(head: str, scan: str) -> str:
        return PAGE.format(head=head, module=module, data=json.dumps(DATA).replace("/image/", f"/{scan}/"))

    pages = {
        "/": build_page(component.list_preloads(), "image"),
        "/small": build_page(component.list_preloads(), "small").replace("/labels/", "/small-labels/"),
        "/small-without": build_page("", "small").replace("/labels/", "/small-labels/"),
    }
    routes = [
        *(Route(path, lambda request, page=page: HTMLResponse(page)) for path, page in pages.items()),
        Route(f"{component.frontend_folder()}/{{name}}", frontend_file),
        Route("/api/volume/{name}/header.json", lambda r: JSONResponse(volumes[r.path_params["name"]][0])),
        Route("/api/volume/{name}/voxels", voxels),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=PORT, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield
    server.should_exit = True
    thread.join()


def open_page(page: Page) -> tuple[float, float]:
    """Seconds until the planes through the finding are drawn, and until every voxel is here."""
    page.goto(f"http://127.0.0.1:{PORT}/")
    state = "document.querySelector('.mv')?.viewer?.state?.volume"
    since = "(performance.now() - window.began) / 1000"
    first = page.wait_for_function(f"{state}?.loadedPlanes > 0 && {since}", timeout=120_000).json_value()
    complete = page.wait_for_function(f"{state}.isComplete && {since}", timeout=120_000).json_value()
    page.wait_for_function("document.querySelector('.mv').viewer.complete", timeout=120_000)
    return first, complete


if __name__ == "__main__":
    main()
