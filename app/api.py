"""Serves volumes and exports under signed, expiring addresses, outside Streamlit's websocket."""

import re
import time
from collections.abc import Callable
from functools import lru_cache

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app import sign_ins
from app.assist_route import build_assist_route
from app.case_export import export_case
from medssl.errors import BadInput
from medssl.review.access.reviewers import ReviewConfig
from medssl.review.access.signed_links import Link, parse_token
from medssl.review.image_files import CaseImage, ImageFiles
from medssl.viewer import wire

PRIVATE = {"Cache-Control": "private, no-store"}


def build_routes(config: ReviewConfig) -> list[Route]:
    """Returns the routes of the app besides those of Streamlit; volumes are read in slabs."""
    images = ImageFiles(config.predictions, config.audit_db, config.comparison)
    open_image = lru_cache(maxsize=8)(images.open)

    def parse_link(request: Request) -> Link:
        link = parse_token(request.path_params["token"], config.key, time.time())
        if link and sign_ins.is_in_use(config, link.sign_in, request.headers):
            return link
        raise BadInput("the link is invalid or has expired")

    def find_image(request: Request) -> CaseImage:
        return images.find(parse_link(request))

    def send_header(request: Request) -> Response:
        image = find_image(request)
        return JSONResponse(wire.describe_slabs(open_image(image), image.unit), headers=PRIVATE)

    def send_voxels(request: Request) -> Response:
        slabs = open_image(find_image(request))
        planes = _parse_planes(request.query_params, slabs.table.shape[2])
        return _send_range(slabs.read_packed(*planes), request.headers.get("range"))

    def send_export(request: Request) -> Response:
        link = parse_link(request)
        if link.kind != "export":
            raise BadInput("a link to an image names no export")
        disposition = {"Content-Disposition": f'attachment; filename="case-{link.number}.zip"'}
        content = export_case(config, link.number, link.event)
        return Response(content, 200, PRIVATE | disposition, "application/zip")

    return [
        Route("/api/volume/{token}/header.json", _hide_errors(send_header)),
        Route("/api/volume/{token}/voxels", _hide_errors(send_voxels)),
        Route("/api/export/{token}", _hide_errors(send_export)),
        build_assist_route(config, images, parse_link),
    ]


def _hide_errors(endpoint: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Answers a failed request with a plain 404, since an error message could reveal data to a stranger."""

    def answer(request: Request) -> Response:
        try:
            return endpoint(request)
        except (BadInput, OSError):
            return Response("this link is invalid or has expired", 404, PRIVATE, media_type="text/plain")

    return answer


def _parse_planes(query: QueryParams, num_planes: int) -> tuple[int, int]:
    """Returns the first plane and the one after the last plane of a request."""
    start, stop = query.get("from", "0"), query.get("to", str(num_planes))
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop) <= num_planes):
        raise BadInput(f"planes {start} to {stop}: the volume has {num_planes}")
    return int(start), int(stop)


def _send_range(body: bytes, requested: str | None) -> Response:
    """Answers with the compressed bytes, all of them or the one range of a Range header."""
    headers = PRIVATE | {"Content-Encoding": "gzip", "Accept-Ranges": "bytes"}
    media_type = "application/octet-stream"
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", requested or "")
    if not match or not (match[1] or match[2]):
        return Response(body, 200, headers, media_type)
    first, last = int(match[1] or max(0, len(body) - int(match[2]))), len(body) - 1
    if match[1] and match[2]:
        last = min(last, int(match[2]))
    if first > last:
        return Response(b"", 416, PRIVATE | {"Content-Range": f"bytes */{len(body)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
    return Response(body[first : last + 1], 206, headers, media_type)
