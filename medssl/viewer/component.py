"""Component: the viewer as a Streamlit element, with its own JavaScript, which the server offers at `address`.

Events come back numbered. The browser keeps an event in its outbox and sends it again, also after a reload or to a
restarted server, until `acked_seq` reaches its `seq`; so a handler must store an event once per (client, seq).
Every event has client, seq, kind and at (ISO 8601, the browser's clock), and by kind:

    verdict   finding, decision (accept, reject, edit, unsure, relabel with label), reason, note, dwell_ms;
              next: what is looked at after it
    missed    centre_mm, label, reason, note: a reader's own finding at the crosshair
    measure   finding, plane, long and short: each the two ends of an axis, in mm RAS
    stroke    runs [[first voxel, voxels, label], ...] over the RAS grid, i fastest; tool, finding
    undo      of: the seq of the event that is taken back
    select    finding: what the reader looks at now
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

Event = dict[str, Any]
Handler = Callable[[Event], object]
FRONTEND = Path(__file__).parent / "frontend"
# In the order of their imports; the last one exports what Streamlit calls.
MODULES = (
    "dom", "geometry", "volume", "state", "outbox", "edit", "pane", "beside", "solid", "tools", "choice", "reading",
    "keys", "panels", "viewer",
)  # fmt: skip


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
    doubt: str = "",
    besides: Sequence[dict[str, Any]] = (),
    name: str = "",
    editable: bool = False,
    reasons: Sequence[str] = (),
    height: int = 700,
    on_verdict: Handler | None = None,
    on_stroke: Handler | None = None,
    on_select: Handler | None = None,
    on_undo: Handler | None = None,
) -> Any:
    """Shows a volume in three linked planes; URLs are those of the headers that `medssl.viewer.wire` describes.

    `labels` gives name, colour (a CSS colour) and visible; `findings` are dicts of Finding, plus `decision` where there
    is a verdict, `relabelled` where it gave another label and `axes` where they were measured; `doubt` says what the
    uncertainty is. Handlers get one event each, in order; on_verdict also gets missed findings and measures, and undo
    if there is no on_undo. `acked_seq` belongs to `key`: give every case a key, and the seq that was stored last under
    it. Each of `besides` can be looked at beside the volume `name`: id, name, volume, overlay, pairs (finding here ->
    centre_mm there, said), none (said of findings without), only (centre_mm, said).
    """
    handlers = dict.fromkeys(("verdict", "missed", "measure"), on_verdict)
    handlers |= {"stroke": on_stroke, "select": on_select, "undo": on_undo or on_verdict}
    data = {
        "volume": volume, "overlay": overlay, "probability": probability, "uncertainty": uncertainty,
        "unit": unit, "key": key, "height": height,
        "labels": {str(number): look for number, look in labels.items()}, "findings": findings, "selected": selected,
        "acked_seq": acked_seq, "editable": editable, "reasons": list(reasons), "besides": list(besides),
        "name": name, "doubt": doubt,
        "wants": [kind for kind, handler in handlers.items() if handler],
    }  # fmt: skip

    def heard() -> None:
        for event in st.session_state[key]["events"]:
            if event["seq"] > acked_seq and (handler := handlers.get(event["kind"])):
                handler(event)

    return _element()(key=key, data=data, height=height, on_events_change=heard)


@cache
def javascript() -> str:
    """The viewer's modules as one, with its looks: joined in order, without the imports and exports that tied them."""
    looks = f"const STYLE = {json.dumps(stylesheet())};"  # what viewer.js imports as ./style.js
    return "\n".join([looks, *map(_inlined, MODULES), "export default mount;\n"])


def stylesheet() -> str:
    """The viewer's looks."""
    return (FRONTEND / "viewer.css").read_text(encoding="utf-8")


def address() -> str:
    """Where the server must answer with `javascript`; another viewer has another address."""
    return f"/api/viewer/{hashlib.sha256(javascript().encode()).hexdigest()[:16]}.js"


def loader() -> str:
    """What Streamlit sends to the browser at every run of a page: the browser keeps the viewer itself."""
    return f"""const {{ default: mount }} = await import(new URL("{address()}", document.baseURI).href);
export default mount;
"""


@cache
def _element() -> Callable[..., Any]:
    return st.components.v2.component("medssl_viewer", js=loader())


def _inlined(name: str) -> str:
    source = (FRONTEND / f"{name}.js").read_text(encoding="utf-8")
    source = re.sub(r"^import [^;]*;\n", "", source, flags=re.MULTILINE)
    source = re.sub(r"^export default .*;\n", "", source, flags=re.MULTILINE)
    return re.sub(r"^export ", "", source, flags=re.MULTILINE)
