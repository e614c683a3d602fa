"""A minimal Streamlit server with one case, which stores the events of the viewer in a text file."""

import json
import os
from pathlib import Path

import numpy as np
import streamlit as st
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medssl.viewer import component, wire
from medssl.viewer.component import viewer
from medssl.volume import Volume

STORE = Path(os.environ["VIEWER_TEST_STORE"])
VOXELS = np.random.default_rng(3).integers(-1000, 500, (40, 30, 20)).astype(np.int16)


LABELS = {1: {"name": "nodule", "colour": "#ff8000", "visible": True}}


def main():
    """The page."""
    decisions = {e["finding"]: e["decision"] for e in read_events() if e["kind"] == "verdict"}
    findings = [
        {"id": name, "label": 1, "name": "nodule", "centre_mm": [n * 9.0 + 3, 9, 8], "decision": decisions.get(name)}
        for n, name in enumerate(("one", "two", "three"))
    ]
    viewer(
        key="case", volume="/api/volume/image/header.json", overlay="/api/volume/labels/header.json", probability=None,
        labels=LABELS, unit="HU", findings=findings, selected="one",
        answer=st.session_state.get("answer", {"acked": [], "refused": None}),
        drawn=[f"{e['client']}-{e['seq']}" for e in read_events() if e["kind"] == "stroke"], editable=True, height=600,
        on_events=store,
    )  # fmt: skip


def read_events():
    """Returns every event so far."""
    return [json.loads(line) for line in STORE.read_text().splitlines()] if STORE.exists() else []


def store(events):
    """Stores each event once."""
    for event in events:
        if (event["client"], event["seq"]) not in [(e["client"], e["seq"]) for e in read_events()]:
            with STORE.open("a") as out:
                out.write(json.dumps(event) + "\n")
    acked = [f"{event['client']}-{event['seq']}" for event in events]
    st.session_state["answer"] = {"acked": acked, "refused": None}


def volumes():
    """Image and labels, encoded."""
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    labels = (VOXELS > 480).astype(np.uint8)
    return {"image": wire.encode(Volume(VOXELS, affine, "HU")), "labels": wire.encode(Volume(labels, affine, "label"))}


def header(request):
    """The header of a volume."""
    return JSONResponse(volumes()[request.path_params["name"]][0])


def voxels(request):
    """A slab of a volume."""
    start, stop = (int(request.query_params[end]) for end in ("from", "to"))
    body = wire.compress_slab(*volumes()[request.path_params["name"]], start, stop)
    return Response(body, headers={"Content-Encoding": "gzip"}, media_type="application/octet-stream")


def frontend_file(request):
    """A module or the stylesheet of the viewer."""
    name = request.path_params["name"]
    return Response(component.load_frontend()[name], media_type=component.MEDIA_TYPES[Path(name).suffix])


if st.runtime.exists() and st.runtime.scriptrunner.get_script_run_ctx():
    main()
else:
    app = st.App(
        __file__,
        routes=[
            Route("/api/volume/{name}/header.json", header),
            Route("/api/volume/{name}/voxels", voxels),
            Route(f"{component.frontend_folder()}/{{name}}", frontend_file),
        ],
    )
