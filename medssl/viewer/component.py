"""Shows the viewer as a Streamlit component, and lists the files of its frontend that a server must offer.

The browser numbers its events and keeps them in an outbox, in order. It sends those that wait again, also after a
reload or to a restarted server, until an answer names them as done (`acked`), or as refused, after which it stops and
lets the reader decide. An event is identified by the page that numbered it and its number, `CLIENT-SEQ`, and may
arrive more than once. Every event has client, seq, kind and at (ISO 8601, the browser's clock), and by kind:

    verdict   finding, decision (accept, reject, edit, unsure, relabel with label), reason, note, dwell_ms;
              next: the finding that the reader goes to afterwards
    missed    centre_mm, label, reason, note: a reader's own finding at the crosshair
    measure   finding, plane, long and short: the two ends of each axis, in mm RAS
    stroke    runs [[first voxel, voxels, label], ...] over the RAS grid, i fastest; tool, finding;
              assist: engine, version, num_clicks and num_slices of the tool that proposed it, if one did
    undo      of, of_client: number and page of the event that is taken back
    sign      screen: the strokes and verdicts on the screen
    reopen, deliver, next    acts on the whole case
    select    finding: the one that the reader looks at
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

Handler = Callable[[Any], object]
EVENT_KINDS = ("verdict", "missed", "measure", "stroke", "undo", "sign", "reopen", "deliver", "next", "select")
FRONTEND = Path(__file__).parent / "frontend"
VIEWER_ENTRY, COURIER_ENTRY = "viewer.js", "courier.js"
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
    answer: Mapping[str, Any],
    on_events: Handler,
    uncertainty: str | None = None,
    uncertainty_source: str = "",
    comparisons: Sequence[dict[str, Any]] = (),
    name: str = "",
    editable: bool = False,
    reasons: Sequence[str] = (),
    height: int | None = None,
    facts: Sequence[str] = (),
    instances: Mapping[str, Any] | None = None,
    session: str = "",
    assist: str | None = None,
    reader: str = "",
    drawn: Sequence[str] = (),
    undoable: Sequence[str] = (),
    case: Mapping[str, Any] | None = None,
    alive_s: float = 0,
) -> Any:
    """Shows a volume in three linked planes.

    Args:
        key: Name of the case in this browser; each case needs a key of its own.
        volume: URL of the header that `medssl.viewer.wire` describes.
        overlay: URL of the header of the labels.
        probability: URL of the header of the model's confidence, from 0 to 1.
        labels: Label value to its `name`, `colour` (a CSS colour), `visible` and, where one preset shows it best,
            the name of that `window`.
        unit: Unit of the volume's values.
        findings: The fields of `Finding`, with `decision` where there is a verdict, `relabelled` where the verdict
            gave another label, and `axes` where the finding was measured.
        selected: Id of the finding that the case opens with.
        answer: What became of the events that were sent last: `acked`, the identities of those that are done, and
            `refused`, the `id` and `reason` of the first that was refused, or None.
        on_events: Handles the list of all events that wait, in order.
        uncertainty: URL of the header of the model's uncertainty, from 0 to 1.
        uncertainty_source: What the uncertainty is, in words.
        comparisons: Studies, models or other sequences (`isSequence`, without an overlay; `isHot` for PET) that can be
            shown next to the case: id, name, volume, overlay, `pairs` (id of a finding here to its `centre_mm` there
            and a `text`), `unpaired_text` for findings without a pair, and `unmatched`, the findings that only the
            other side has (`centre_mm`, `text`).
        name: Caption of the case while a comparison is shown.
        editable: Whether the reader may change the case.
        reasons: Reasons that the reader can choose for a verdict.
        height: Height in CSS pixels; None fills the rest of the browser window.
        facts: What is known about the series, a line each.
        instances: The `numbers` of the slices in the archive, along an `axis` of the RAS grid; None if unknown.
        session: Identity of the server's session; when it changes, the browser sends at once what waits.
        assist: Address that proposes masks for clicks; None offers no proposals.
        reader: Identity of the reader, under which the browser keeps the window of each label.
        drawn: Identities of the strokes that `overlay` contains, in order.
        undoable: Identities of the reader's stored events that can be taken back.
        case: State of the whole case: signed_at, sign_obstacle, has_next, may_deliver, export_formats, download_url;
            None shows no acts on the whole case.
        alive_s: Seconds between two runs of the page while the reader is at work; 0 for none.
    """
    data = {
        "volume": volume, "overlay": overlay, "probability": probability, "uncertainty": uncertainty,
        "unit": unit, "key": key, "height": height, "facts": list(facts),
        "instances": dict(instances) if instances else None,
        "labels": {str(value): label for value, label in labels.items()}, "findings": findings, "selected": selected,
        "editable": editable, "reasons": list(reasons), "comparisons": list(comparisons),
        "name": name, "uncertainty_source": uncertainty_source, "handled_events": list(EVENT_KINDS),
        "session": session, "assist": assist, "reader": reader, "drawn": list(drawn), "undoable": list(undoable),
        "case": case, "alive_s": alive_s,
    } | dict(answer)  # fmt: skip

    def handle_events() -> None:
        on_events(st.session_state[key]["events"])

    show = _create_component("medssl_viewer", VIEWER_ENTRY)
    outer = "content" if height is None else height
    return show(key=key, data=data, height=outer, on_events_change=handle_events, on_alive_change=lambda: None)


def courier(*, prefix: str, answers: Mapping[str, Any], on_events: Handler) -> Any:
    """Sends the events that wait in the browser for cases that are not on the page.

    Args:
        prefix: How the keys of this reader's viewers start.
        answers: For the key of a case, its name and the answer to the events that were sent last, see `viewer`.
        on_events: Handles the events that wait, a list for each key.
    """

    def handle_events() -> None:
        on_events(st.session_state[key]["events"])

    key = f"courier-{prefix}"
    data = {"prefix": prefix, "answers": dict(answers)}
    return _create_component("medssl_courier", COURIER_ENTRY)(key=key, data=data, on_events_change=handle_events)


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


def list_preloads() -> str:
    """Returns the HTML for the head of a page that lets the browser fetch and compile all modules before they are used.

    Without it, the browser finds the modules one import after the other.
    """
    scripts = [name for name in load_frontend() if name.endswith(".js")]
    return "".join(f'<link rel="modulepreload" href="{frontend_folder()}/{name}">' for name in scripts)


def loader_script(entry: str = VIEWER_ENTRY) -> str:
    """Returns the script that Streamlit sends with every run of a page; the browser caches the modules themselves."""
    return f"""const {{ default: mount }} = await import(new URL("{frontend_folder()}/{entry}", document.baseURI).href);
export default mount;
"""


@cache
def _create_component(name: str, entry: str) -> Callable[..., Any]:
    return st.components.v2.component(name, js=loader_script(entry))
