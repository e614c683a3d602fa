"""Reads what the viewer asks a proposal for, and writes the answer: voxels as offsets and runs of the RAS grid."""

from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medssl.errors import BadInput
from medssl.review.assist.drawn_slices import DrawnSlices
from medssl.review.assist.proposal import Proposal
from medssl.review.assist.scene import Clicks
from medssl.review.mask_runs import diff_masks

MAX_CLICKS, MAX_RUNS, MAX_SLICES = 500, 500_000, 1000
Offset = Annotated[int, Field(ge=0, le=2**53)]
Run = tuple[Offset, Annotated[int, Field(ge=1, le=2**53)]]
Slice = tuple[Annotated[int, Field(ge=0, le=2)], Offset]
Mask = Bool[np.ndarray, "i j k"]


class AssistRequest(BaseModel):
    """The clicks of a reader, and the mask that they correct.

    Args:
        label: The label of the finding.
        inside: The voxels that belong to the finding, i fastest.
        outside: The voxels that do not.
        mask: The current mask: first voxel and number of voxels of each run.
        slices: The slices in which the mask is as the reader wants it: the axis across each, and its index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: int = Field(ge=1, le=65535)
    inside: tuple[Offset, ...] = Field((), max_length=MAX_CLICKS)
    outside: tuple[Offset, ...] = Field((), max_length=MAX_CLICKS)
    mask: tuple[Run, ...] = Field((), max_length=MAX_RUNS)
    slices: tuple[Slice, ...] = Field((), max_length=MAX_SLICES)

    @classmethod
    def parse(cls, content: bytes) -> "AssistRequest":
        """Returns the request in the body of an HTTP request; raises BadInput if it is malformed."""
        try:
            request = cls.model_validate_json(content)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = " ".join(str(part) for part in fault["loc"])[:60] or "body"
            raise BadInput(f"no request for a proposal ({place}: {fault['msg'][:120]})") from None
        if not request.inside and not request.mask:
            raise BadInput("nothing to start from: click inside the finding first")
        return request

    def read_clicks(self, shape: tuple[int, int, int]) -> Clicks:
        """Returns the clicks on a grid of this shape; raises BadInput if one lies outside."""
        return Clicks(*(_to_points(np.array(o, np.int64), shape) for o in (self.inside, self.outside)))

    def read_slices(self, shape: tuple[int, int, int]) -> DrawnSlices:
        """Returns the drawn slices of a grid of this shape; raises BadInput if one lies outside."""
        _require_inside(all(index < shape[axis] for axis, index in self.slices))
        i, j, k = (tuple(sorted({n for axis, n in self.slices if axis == a})) for a in range(3))
        return DrawnSlices(i, j, k)

    def read_mask(self, shape: tuple[int, int, int]) -> Mask:
        """Returns the current mask on a grid of this shape; raises BadInput if a run leaves it."""
        flat = np.zeros(int(np.prod(shape)), bool)
        for start, length in self.mask:
            _require_inside(start + length <= flat.size)
            flat[start : start + length] = True
        return flat.reshape(shape, order="F")


def describe_proposal(before: Mask, after: Mask, proposal: Proposal, engine: str, version: str) -> dict[str, Any]:
    """Returns the answer: the runs that the proposal adds and removes, and the tool that made it."""
    runs = diff_masks(before.view(np.uint8), after.view(np.uint8))
    added, removed = (runs[runs[:, 2] == value, :2].tolist() for value in (1, 0))
    tool = {"engine": engine, "version": version}
    return {"added": added, "removed": removed, "num_voxels": int(proposal.mask.sum())} | tool


def _to_points(offsets: Int64[np.ndarray, " n"], shape: tuple[int, int, int]) -> Int64[np.ndarray, "n 3"]:
    _require_inside(bool((offsets < np.prod(shape)).all()))
    return np.stack(np.unravel_index(offsets, shape, order="F"), 1).astype(np.int64)


def _require_inside(is_inside: bool) -> None:
    if not is_inside:
        raise BadInput("a click, a slice or the mask leaves the image; reload the page")
