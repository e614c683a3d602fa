"""Asks an nnInteractive server of the hospital for proposals, in place of the engine of this package.

Isensee F et al., nnInteractive: Redefining 3D promptable segmentation, arXiv:2503.08373, 2025. The current mask is sent
as its initial segmentation, each drawn slice as a lasso, each click as a point. The server holds the weights, whose
licence is not that of this package.
"""

import logging
from importlib import import_module
from threading import Lock
from typing import Any

import httpx
import numpy as np
from jaxtyping import Bool

from medssl.errors import BadInput
from medssl.review.assist.drawn_slices import DrawnSlices
from medssl.review.assist.proposal import AssistImage, Proposal
from medssl.review.assist.scene import Clicks

NAME = "nninteractive"
Mask = Bool[np.ndarray, "i j k"]

logger = logging.getLogger(__name__)


class InteractiveServer:
    """A server of nnInteractive, with one session that holds the image of one case at a time.

    Args:
        url: The address of the server, http(s)://HOST:PORT. Its client takes a key from NN_INTERACTIVE_API_KEY.

    Raises:
        BadInput: If the client is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self._remote = import_module("nnInteractive.inference.remote.remote_session")
        except ImportError:
            raise BadInput(
                "--nninteractive needs its client; install it with `pip install 'medssl[nninteractive]'`"
            ) from None
        self._url, self._lock = url, Lock()
        self._session: Any = None
        self._image: AssistImage | None = None

    @property
    def version(self) -> str:
        """The version of the server; empty before the first proposal."""
        return str(self._session.INFERENCE_SESSION_VERSION) if self._session else ""

    def propose_mask(self, image: AssistImage, mask: Mask, clicks: Clicks, drawn: DrawnSlices) -> Proposal:
        """Returns the proposal of the server; the drawn slices stay as they are.

        Args:
            image: The image; it is sent once, and again after another case.
            mask: The current mask of the finding, on the grid of the image; may be empty.
            clicks: The clicks on the same grid.
            drawn: The slices in which the mask is as the reader wants it.

        Raises:
            BadInput: If there is neither a click nor an outline, or the server does not answer.
        """
        outlines = [outline for outline in drawn.cut_outlines(mask) if outline.any()]
        if not (outlines or len(clicks.all_points)):
            raise BadInput("draw a slice of the finding, or click inside, first")
        try:
            with self._lock:
                after = self._ask(image, mask, clicks, outlines)
        except (httpx.HTTPError, RuntimeError, ValueError) as error:
            self._session = None
            logger.warning("nnInteractive at %s: %s", self._url, error)
            raise BadInput(f"the nnInteractive server gives no proposal ({str(error)[:150]})") from None
        in_slices = drawn.mark(mask.shape)
        return Proposal((slice(None),) * 3, np.where(in_slices, mask, after))

    def _ask(self, image: AssistImage, mask: Mask, clicks: Clicks, outlines: list[Mask]) -> Mask:
        """Returns the prediction of the server, in a new session if the old one has expired."""
        try:
            return self._predict(image, mask, clicks, outlines)
        except self._remote.SessionExpiredError:  # after a long pause, or a restart of the server
            self._session = None
            return self._predict(image, mask, clicks, outlines)

    def _predict(self, image: AssistImage, mask: Mask, clicks: Clicks, outlines: list[Mask]) -> Mask:
        session = self._connect(image)
        session.reset_interactions()
        if mask.any() and session.supports_initial_label:
            session.add_initial_seg_interaction(mask.astype(np.uint8))
        prompts = [(session.add_lasso_interaction, outline.astype(np.uint8), True) for outline in outlines]
        for points, is_inside in ((clicks.inside, True), (clicks.outside, False)):
            prompts += [(session.add_point_interaction, point.tolist(), is_inside) for point in points]
        for number, (add, prompt, is_inside) in enumerate(prompts, 1):
            add(prompt, is_inside, run_prediction=number == len(prompts))
        return session.target_buffer > 0

    def _connect(self, image: AssistImage) -> Any:
        """Returns the session with an image in it."""
        if self._session is None:
            self._image = None
            self._session = self._remote.nnInteractiveRemoteInferenceSession(self._url)
            logger.info(
                "nnInteractive %s at %s; licence of its weights: %s", self.version, self._url, self._session.license
            )
        if self._image is not image:
            spacing = {"spacing": list(image.volume.spacing_mm())}
            self._session.set_image(np.ascontiguousarray(image.volume.voxels[None]), spacing)
            self._session.set_target_buffer(np.zeros(image.volume.shape, np.uint8))
            self._image = image
        return self._session
