"""Frontend: the first bytes of every page, which say at once that it is coming, and the viewer's code, fetched once."""

from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from medssl.predictions_folder import NOTICE
from medssl.viewer import component

PAGES = ("/", "/case", "/agreement")
EMPTY = '<div id="root"></div>'  # where Streamlit draws once its own code is here: it takes away what stands there
OPENING = """<style>
  html, body { background: #0d1013; }
  .opening { position: fixed; inset: 0; display: grid; place-content: center; justify-items: center; gap: 10px;
    font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; color: #8b96a1; }
  .opening b { color: #ccd3da; font-weight: 600; }
  .opening i { width: 28px; height: 28px; border: 2px solid #272d34; border-top-color: #5fb3c8; border-radius: 50%;
    animation: opening-turn .9s linear infinite; }
  .opening small { opacity: 0; animation: opening-late .4s 12s forwards; }
  @keyframes opening-turn { to { transform: rotate(1turn); } }
  @keyframes opening-late { to { opacity: 1; } }
</style>
<div id="root"><div class="opening" role="status"><i></i><b>Opening the review</b>
<small>The machine is busy; nothing is lost while you wait.</small><span>{notice}</span></div></div>"""


def routes() -> list[Route]:
    """The pages as they begin, and the viewer's module under an address that changes with it."""
    index = (Path(st.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    waiting = OPENING.replace("{notice}", NOTICE)
    opening = index.replace(EMPTY, waiting).replace("<title>Streamlit</title>", "<title>Review</title>")

    def page(_: Request) -> Response:
        return HTMLResponse(opening, headers={"Cache-Control": "no-cache"})

    def script(_: Request) -> Response:
        kept = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(component.javascript(), headers=kept, media_type="text/javascript")

    return [Route(component.address(), script), *(Route(path, page) for path in PAGES)]
