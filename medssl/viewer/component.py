"""Shows the viewer as a Streamlit component, and lists the files of its frontend that a server must offer.

Events come back numbered. The browser keeps an event in its outbox and sends it again, also after a reload or to a
restarted server, until `acked_seq` reaches its `seq`; so a handler must store an event once per (client, seq).
Every event has client, seq, kind and at (ISO 8601, the browser's clock), and by kind:

    verdict   finding, decision (accept, reject, edit, unsure, relabel with label), reason, note, dwell_ms;
              next: the finding that the reader goes to afterwards
    missed    centre_mm, label, reason, note: a reader's own finding at the crosshair
    measure   finding, plane, long and short: the two ends of each axis, in mm RAS
    stroke    runs [[first voxel, voxels, label], ...] over the RAS grid, i fastest; tool, finding
    undo      of: the seq of the event that is taken back
    select    finding: the one that the reader looks at
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

Event = dict[str, Any]
Handler = Callable[[Event], object]
FRONTEND = Path(__file__).parent / "frontend"
ENTRY = "viewer.js"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css"}
PREFIX = "/api/viewer"


def viewer(
    *,
    key: str,
    volume: str,
    overlay: str | None,
    probability: str | None,
    labels: dict[int, dict[str, Any]],
    unit: str,
    findings: list[dict[str, Any]],
    selected: str | None,
    acked_seq: int,
    uncertainty: str | None = None,
    uncertainty_source: str = "",
    comparisons: Sequence[dict[str, Any]] = (),
    name: str = "",
    editable: bool = False,
    reasons: Sequence[str] = (),
    height: int = 700,
    on_verdict: Handler | None = None,
    on_stroke: Handler | None = None,
    on_select: Handler | None = None,
    on_undo: Handler | None = None,
) -> Any:
    """Shows a volume in three linked planes. Each handler gets one event at a time, in order.

    Args:
        key: Name of the case in this browser; each case needs a key of its own.
        volume: URL of the header that `medssl.viewer.wire` describes.
        overlay: URL of the header of the labels.
        probability: URL of the header of the model's confidence, from 0 to 1.
        labels: Label value to its `name`, `colour` (a CSS colour) and `visible`.
        unit: Unit of the volume's values.
        findings: The fields of `Finding`, with `decision` where there is a verdict, `relabelled` where the verdict
            gave another label, and `axes` where the finding was measured.
        selected: Id of the finding that the case opens with.
        acked_seq: Number of the last event that was stored under `key`.
        uncertainty: URL of the header of the model's uncertainty, from 0 to 1.
        uncertainty_source: What the uncertainty is, in words.
        comparisons: Studies or models that can be shown next to the case: id, name, volume, overlay, `pairs` (id of a
            finding here to its `centre_mm` there and a `text`), `unpaired_text` for findings without a pair, and
            `unmatched`, the findings that only the other side has (`centre_mm`, `text`).
        name: Caption of the case while a comparison is shown.
        editable: Whether the reader may change the case.
        reasons: Reasons that the reader can choose for a verdict.
        height: Height in CSS pixels.
        on_verdict: Handles verdicts, missed findings and measurements, and undo if there is no `on_undo`.
        on_stroke: Handles strokes.
        on_select: Handles selections; without it the browser sends none.
        on_undo: Handles undo.
    """
    handlers = dict.fromkeys(("verdict", "missed", "measure"), on_verdict)
    handlers |= {"stroke": on_stroke, "select": on_select, "undo": on_undo or on_verdict}
    data = {
        "volume": volume, "overlay": overlay, "probability": probability, "uncertainty": uncertainty,
        "unit": unit, "key": key, "height": height,
        "labels": {str(value): label for value, label in labels.items()}, "findings": findings, "selected": selected,
        "acked_seq": acked_seq, "editable": editable, "reasons": list(reasons), "comparisons": list(comparisons),
        "name": name, "uncertainty_source": uncertainty_source,
        "handled_events": [kind for kind, handler in handlers.items() if handler],
    }  # fmt: skip

    def handle_events() -> None:
        for event in st.session_state[key]["events"]:
            if event["seq"] > acked_seq and (handler := handlers.get(event["kind"])):
                handler(event)

    return _create_component()(key=key, data=data, height=height, on_events_change=handle_events)


@cache
def load_frontend() -> Mapping[str, bytes]:
    """Returns the files that the browser needs, by name: the ES modules and their stylesheet."""
    return {path.name: path.read_bytes() for path in sorted(FRONTEND.iterdir()) if path.suffix in MEDIA_TYPES}


def frontend_folder() -> str:
    """The path under which a server must offer every file of `load_frontend`.

    It contains a hash of all files. The modules import each other by relative paths, so one version never mixes with
    modules of another version that a browser has cached, and a browser may keep them for good.
    """
    digest = hashlib.sha256()
    for name, content in load_frontend().items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"{PREFIX}/{digest.hexdigest()[:16]}"


def loader_script() -> str:
    """Returns the script that Streamlit sends with every run of a page; the browser caches the modules themselves."""
    return f"""const {{ default: mount }} = await import(new URL("{frontend_folder()}/{ENTRY}", document.baseURI).href);
export default mount;
"""


@cache
def _create_component() -> Callable[..., Any]:
    return st.components.v2.component("medssl_viewer", js=loader_script())
