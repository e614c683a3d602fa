"""Serves the first bytes of every page, with a loading message and the preloads, and the files of the viewer."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from app.headers import read_page
from medssl.predictions_folder import NOTICE
from medssl.viewer import component

PAGES = ("/", "/case", "/agreement", "/adjudication", "/drift")
EMPTY_ROOT = '<div id="root"></div>'  # Streamlit replaces its content once it has loaded
LOADING_HTML = """<style>
  html, body { background: #0d1013; }
  .loading { position: fixed; inset: 0; display: grid; place-content: center; justify-items: center; gap: 10px;
    font: 15px/1.5 system-ui, "Liberation Sans", sans-serif; color: #8b96a1; }
  .loading b { color: #ccd3da; font-weight: 600; }
  .loading i { width: 28px; height: 28px; border: 2px solid #272d34; border-top-color: #5fb3c8; border-radius: 50%;
    animation: loading-turn .9s linear infinite; }
  .loading small { opacity: 0; animation: loading-late .4s 12s forwards; }
  @keyframes loading-turn { to { transform: rotate(1turn); } }
  @keyframes loading-late { to { opacity: 1; } }
</style>
<div id="root"><div class="loading" role="status"><i></i><b>Opening the review</b>
<small>The server is busy. All your work is saved.</small><span>{notice}</span></div></div>"""


def build_routes() -> list[Route]:
    """Returns the routes of the first bytes of each page, and of the viewer's modules under a path with their hash."""
    index = read_page()
    loading = LOADING_HTML.replace("{notice}", NOTICE)
    head = f"<title>Review</title>{component.list_preloads()}"
    html = index.replace(EMPTY_ROOT, loading).replace("<title>Streamlit</title>", head)

    def send_page(_: Request) -> Response:
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

    def send_file(request: Request) -> Response:
        name = request.path_params["name"]
        content = component.load_frontend().get(name)
        if content is None:
            return Response("not found", 404)
        immutable = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(content, headers=immutable, media_type=component.MEDIA_TYPES[Path(name).suffix])

    return [Route(f"{component.frontend_folder()}/{{name}}", send_file), *(Route(path, send_page) for path in PAGES)]
