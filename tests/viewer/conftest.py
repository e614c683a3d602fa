"""A page with nothing but the viewer, in a real Chromium. A dictionary serves it; every other request is refused."""

import json
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from medssl.viewer import component, wire

HERE = "http://viewer.test"
PAGE = """<!doctype html><meta charset="utf-8"><style>body { margin: 0; background: #05070a }</style>
<div id="host"></div><script type="module">
import mount from "/viewer/viewer.js";
window.sent = [];
window.alive = 0;
window.show = (data) => mount({
  data, parentElement: document.getElementById("host"),
  setTriggerValue: (name, value) =>
    name === "events" ? window.sent.push(...JSON.parse(JSON.stringify(value))) : window.alive++,
});
window.ready = true;
</script>"""


class Screen:
    """One page with one viewer, and the requests that it made."""

    def __init__(self, page):
        self.page = page
        self.frontends = {"viewer": dict(component.load_frontend())}  # folder -> its files
        self.served, self.requested, self.foreign, self.errors = {}, [], [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.route("**/*", self._answer)

    def open(self, volume, overlay=None, probability=None, uncertainty=None, wait=True, **facts):
        """Shows volumes; `facts` change the data that the component gets."""
        if not self.page.url.startswith(HERE):
            self.page.goto(HERE + "/")
            self.page.wait_for_function("window.ready")
        urls = {name: self.serve(name, v) for name, v in
                (("volume", volume), ("overlay", overlay), ("probability", probability),
                 ("uncertainty", uncertainty))}  # fmt: skip
        self.data = {"labels": {"1": {"name": "nodule", "colour": "#ffb03b", "visible": True}}, "unit": volume.unit,
                     "findings": [], "selected": None, "acked": [], "refused": None, "drawn": [], "undoable": [],
                     "editable": False, "height": 700, "key": "case", "reasons": [],
                     "handled_events": ["verdict", "missed", "stroke", "undo"],
                     } | urls | facts  # fmt: skip
        self.show()
        if wait:
            self.wait_until_loaded()
        return self

    def serve(self, name, volume):
        """Serves a volume under a new name. Returns its address, or None for no volume."""
        if volume is None:
            return None
        name = f"{name}-{len(self.served)}"
        self.served[name] = wire.encode(volume)
        return f"/api/volume/{name}/header.json"

    def show(self, **facts):
        """Runs the component again, as Streamlit does after every event."""
        self.data |= facts
        self.page.evaluate("data => window.show(data)", self.data)

    def acknowledge(self, *seqs, **facts):
        """Answers that the events with these numbers, or all that were sent, are stored."""
        ids = {f"{e['client']}-{e['seq']}": e for e in self.list_sent_events() if not seqs or e["seq"] in seqs}
        acts = [name for name, e in ids.items() if e["kind"] in ("verdict", "measure", "stroke")]
        self.show(acked=list(ids), undoable=[*self.data["undoable"], *acts], **facts)

    def wait_until_loaded(self):
        """Waits until every voxel is loaded and drawn."""
        self.page.wait_for_function(
            "url => { const v = document.querySelector('.mv').viewer;"
            " return v.state.volume?.url === url && !v.frameRequest"
            " && ['volume', 'overlay', 'probability', 'uncertainty'].every("
            "n => !v.state[n] || v.state[n].isComplete)"
            " && (!v.state.editable || v.state.editor) && v.panes[0].frame }",
            arg=self.data["volume"],
        )

    def viewer(self, expression, argument=None):
        """Returns the value of JavaScript in which `v` is the viewer and `a` the argument, between two drawings."""
        return self.page.evaluate(
            "async a => { const v = document.querySelector('.mv').viewer;"
            "const drawn = async () => { do await new Promise(requestAnimationFrame); while (v.frameRequest) };"
            "await drawn(); const value = await (async () => {" + expression + "})(); await drawn(); return value }",
            argument,
        )

    def colours(self, plane, indices):
        """Returns what is drawn at the middle of voxels, with the overlay, as [red, green, blue]."""
        return self.viewer(
            "const { frame, base } = v.panes.find(p => p.plane === a[0]); const pen = base.getContext('2d');"
            "return a[1].map(index => { const [x, y] = frame.toPixel(index).map(Math.floor);"
            "return [...pen.getImageData(x, y, 1, 1).data].slice(0, 3) })",
            [plane, [list(index) for index in indices]],
        )

    def at(self, plane, index):
        """Returns where the middle of a voxel is on the page."""
        return self.viewer(
            "const p = v.panes.find(p => p.plane === a[0]); const box = p.top.getBoundingClientRect();"
            "const [x, y] = p.frame.toPixel(a[1]); return [box.left + x / p.ratio, box.top + y / p.ratio]",
            [plane, list(index)],
        )

    def drag(self, plane, start, stop, button="left"):
        """Drags the mouse from one voxel to another."""
        mouse = self.page.mouse
        mouse.move(*self.at(plane, start))
        mouse.down(button=button)
        mouse.move(*self.at(plane, stop), steps=6)
        mouse.up(button=button)
        self.viewer("")

    def list_sent_events(self):
        """Returns every event that was sent so far, with repetitions."""
        return self.page.evaluate("window.sent")

    def list_distinct_events(self):
        """Returns every event once: on a busy machine, an event may be sent again before a test has looked."""
        return list({(event["client"], event["seq"]): event for event in self.list_sent_events()}.values())

    def _answer(self, route):
        url = urlparse(route.request.url)
        self.requested.append(route.request.url)
        if f"{url.scheme}://{url.netloc}" != HERE:
            self.foreign.append(route.request.url)
            return route.abort()
        if url.path == "/":
            return route.fulfill(body=PAGE, content_type="text/html")
        folder, _, name = url.path[1:].partition("/")
        if name in self.frontends.get(folder, ()):
            content_type = component.MEDIA_TYPES[Path(name).suffix]
            return route.fulfill(body=self.frontends[folder][name], content_type=content_type)
        return self._voxels(route, url)

    def _voxels(self, route, url):
        name, _, part = url.path.removeprefix("/api/volume/").partition("/")
        if name not in self.served:
            return route.fulfill(status=404, body="")
        header, data = self.served[name]
        if part == "header.json":
            return route.fulfill(body=json.dumps(header), content_type="application/json")
        start, stop = (int(parse_qs(url.query)[end][0]) for end in ("from", "to"))
        plane = len(data) // header["shape"][2]
        return route.fulfill(body=data[start * plane : stop * plane], content_type="application/octet-stream")


@pytest.fixture
def screen(chromium):
    """A fresh page. At the end, no request went to another server, and no error went unnoticed."""
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(20_000)
    screen = Screen(page)
    yield screen
    page.close()
    assert screen.foreign == [], "the viewer sent a request to another server"
    assert screen.errors == []
