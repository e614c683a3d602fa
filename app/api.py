"""Our own routes for volumes and deliveries: signed, expiring, and never through the websocket."""

import re
import time
from collections.abc import Callable
from functools import lru_cache

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.delivery import delivered
from medssl.errors import BadInput
from medssl.review.access.reviewers import Access
from medssl.review.access.signed_links import Link, read
from medssl.review.image_files import Picture, Pictures
from medssl.viewer import wire

PRIVATE = {"Cache-Control": "private, no-store"}


def routes(access: Access) -> list[Route]:
    """The routes beside Streamlit's own. Encoded volumes and slabs are kept for the cases that were read last."""
    pictures = Pictures(access.predictions, access.store, access.rival)
    encoded = lru_cache(maxsize=4)(lambda picture: wire.encode(pictures.load(picture)))
    slab = lru_cache(maxsize=200)(lambda picture, start, stop: wire.slab(*encoded(picture), start, stop))

    def ours(request: Request) -> Link:
        if link := read(request.path_params["token"], access.key, time.time()):
            return link
        raise BadInput("not a link of ours, or no longer")

    def asked(request: Request) -> Picture:
        return pictures.find(ours(request))

    def header(request: Request) -> Response:
        return JSONResponse(encoded(asked(request))[0], headers=PRIVATE)

    def voxels(request: Request) -> Response:
        picture = asked(request)
        planes = _planes(request.query_params, encoded(picture)[0]["shape"][2])
        return _ranged(slab(picture, *planes), request.headers.get("range"))

    def delivery(request: Request) -> Response:
        link = ours(request)
        if link.kind != "delivery":
            raise BadInput("an image is no delivery")
        name = {"Content-Disposition": f'attachment; filename="case-{link.number}.zip"'}
        return Response(delivered(access, link.number, link.event), 200, PRIVATE | name, "application/zip")

    return [
        Route("/api/volume/{token}/header.json", _careful(header)),
        Route("/api/volume/{token}/voxels", _careful(voxels)),
        Route("/api/delivery/{token}", _careful(delivery)),
    ]


def _careful(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """What cannot be served is a plain 404: an error page would say more than a stranger should know."""

    def careful(request: Request) -> Response:
        try:
            return answer(request)
        except (BadInput, OSError):
            return Response("this link is not valid, or no longer", 404, PRIVATE, media_type="text/plain")

    return careful


def _planes(asked: QueryParams, planes: int) -> tuple[int, int]:
    start, stop = asked.get("from", "0"), asked.get("to", str(planes))
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop) <= planes):
        raise BadInput(f"planes {start} to {stop}: there are {planes}")
    return int(start), int(stop)


def _ranged(body: bytes, asked: str | None) -> Response:
    """All of the compressed bytes, or the one range that was asked for."""
    headers = PRIVATE | {"Content-Encoding": "gzip", "Accept-Ranges": "bytes"}
    kind = "application/octet-stream"
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if not found or not (found[1] or found[2]):
        return Response(body, 200, headers, kind)
    first, last = int(found[1] or max(0, len(body) - int(found[2]))), len(body) - 1
    if found[1] and found[2]:
        last = min(last, int(found[2]))
    if first > last:
        return Response(b"", 416, PRIVATE | {"Content-Range": f"bytes */{len(body)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
    return Response(body[first : last + 1], 206, headers, kind)
