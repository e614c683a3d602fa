"""Answers the viewer's requests for proposals, under a signed, expiring address."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from medssl.errors import BadInput
from medssl.files import sha256
from medssl.predictions_folder import read_index
from medssl.review.access.reviewers import ReviewConfig
from medssl.review.access.signed_links import Link
from medssl.review.assist.assist_request import AssistRequest, describe_proposal
from medssl.review.assist.context_bank import ContextBank, locate_bank
from medssl.review.assist.encodings import PROJECTION, locate_encodings, read_encoding
from medssl.review.assist.nninteractive import NAME, InteractiveServer
from medssl.review.assist.proposal import ENGINE, ENGINE_VERSION, AssistImage, apply_proposal, propose_mask
from medssl.review.event_store import EventStore
from medssl.review.image_files import CaseImage, ImageFiles

MAX_BYTES = 20_000_000
PRIVATE = {"Cache-Control": "private, no-store"}


class AssistDesk:
    """Proposes masks for the cases of a review, and learns from those that are signed.

    Args:
        config: The configuration of the app.
        images: Finds and reads the images of the cases.
    """

    def __init__(self, config: ReviewConfig, images: ImageFiles) -> None:
        self._config, self._images = config, images
        self._load = lru_cache(maxsize=2)(self._load_image)
        self._encodings = locate_encodings(Path(config.predictions))
        projection = self._encodings / PROJECTION
        self._encoder = sha256(projection) if projection.is_file() else ""
        self._bank = ContextBank(locate_bank(Path(config.predictions), config.audit_db), self._encoder)
        self._server = InteractiveServer(config.nninteractive) if config.nninteractive else None

    def prepare(self, link: Link) -> dict[str, Any]:
        """Reads the image of a case and learns from the cases that were signed; returns their number."""
        self._load(self._find(link.number))
        index = read_index(self._config.predictions)
        store = EventStore(self._config.audit_db)
        number_of = {case: number for number, case in enumerate(index.cases, 1)}

        def load_case(case: str) -> AssistImage:
            return self._load_image(self._find(number_of[case]))

        return {"num_cases": self._bank.refresh(index, store, load_case)}

    def propose(self, link: Link, request: AssistRequest) -> dict[str, Any]:
        """Returns the proposal for a request; raises BadInput if the request does not fit the image."""
        case_image = self._find(link.number)
        image = self._load(case_image)
        before = request.read_mask(image.volume.shape)
        clicks, slices = request.read_clicks(image.volume.shape), request.read_slices(image.volume.shape)
        if self._server:
            proposal = self._server.propose_mask(image, before, clicks, slices)
            tool = (NAME, self._server.version)
        else:
            context = self._bank.find_context(case_image.case, request.label)
            proposal, tool = propose_mask(image, before, clicks, context, slices), (ENGINE, ENGINE_VERSION)
        return describe_proposal(before, apply_proposal(before, proposal), proposal, *tool)

    def _find(self, number: int) -> CaseImage:
        return self._images.find(Link(number, "image", 0, 0))

    def _load_image(self, image: CaseImage) -> AssistImage:
        encoding = read_encoding(self._encodings / f"{image.case}.npz") if self._encoder else None
        return AssistImage.from_volume(self._images.load(image), encoding)


def build_assist_route(config: ReviewConfig, images: ImageFiles, parse_link: Callable[[Request], Link]) -> Route:
    """Returns the route: GET prepares a case, POST proposes a mask for clicks."""
    desk = AssistDesk(config, images)

    async def answer(request: Request) -> Response:
        try:
            link = parse_link(request)
            if link.kind != "assist":
                raise BadInput("this link names no proposals")
        except BadInput:
            return Response("this link is invalid or has expired", 404, PRIVATE, media_type="text/plain")
        try:
            if request.method == "GET":
                content = await run_in_threadpool(desk.prepare, link)
            else:
                body = AssistRequest.parse(await _read_body(request))
                content = await run_in_threadpool(desk.propose, link, body)
        except BadInput as error:
            return JSONResponse({"reason": str(error)}, 400, PRIVATE)
        return JSONResponse(content, 200, PRIVATE)

    return Route("/api/assist/{token}", answer, methods=["GET", "POST"])


async def _read_body(request: Request) -> bytes:
    """Returns the body of a request; raises BadInput as soon as it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise BadInput("the mask is too detailed for a proposal; smooth it first")
    return body
