"""Creates the signed addresses of the images of a case."""

import time
from dataclasses import dataclass

import streamlit as st

from app.review_context import ReviewContext
from medssl.predictions_folder import Index
from medssl.review.access.signed_links import ImageKind, Link, LinkKind
from medssl.review.image_files import FILES

LIFETIME_S = 12 * 3600


@dataclass(frozen=True)
class ImageUrls:
    """Creates addresses for the images of the predictions.

    Args:
        index: The predictions.
        key: The secret key that signs the addresses.
    """

    index: Index
    key: str

    @classmethod
    def from_context(cls, context: ReviewContext) -> "ImageUrls":
        """Returns the addresses of the predictions of a context."""
        return cls(context.index, context.config.key)

    def get_url(self, number: int, kind: ImageKind, event: int = 0) -> str:
        """Returns the address of an image of a case.

        The address stays the same during a browser session, until half of its lifetime has passed, so that the browser
        can cache the voxels.

        Args:
            number: The position of the case in the index, from 1.
            kind: The image.
            event: The event up to which labels include the strokes; 0 includes none.
        """
        return f"/api/volume/{self._sign(number, kind, event)}/header.json"

    def get_assist_url(self, number: int) -> str:
        """Returns the address that proposes masks for a case; it stays the same as those of images do."""
        return f"/api/assist/{self._sign(number, 'assist', 0)}"

    def _sign(self, number: int, kind: LinkKind, event: int) -> str:
        tokens = st.session_state.setdefault("tokens", {})
        expires, token = tokens.get((number, kind, event), (0, ""))
        if expires < time.time() + LIFETIME_S / 2:
            expires = int(time.time()) + LIFETIME_S
            token = Link(number, kind, event, expires, st.session_state.get("sign_in", "")).sign(self.key)
            tokens[number, kind, event] = expires, token
        return str(token)

    def has_map(self, case: str, kind: ImageKind) -> bool:
        """Whether the predictions hold an image of this kind for the case."""
        return (self.index.case_folder(case) / FILES[kind]).is_file()
