"""What an ONNX file states about its network in its metadata: all that a prediction needs besides the network."""

import json
import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from medssl import config
from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.networks.onnx_file import read_metadata
from medssl.models.prediction.interface import ModelInterface

METADATA_KEY = "medssl"
INPUT, PROBABILITY, BOX_SCORES, BOX_CORNERS = "image", "probability", "box_scores", "box_corners"
MAX_PATCH_VOXELS = 2**27


class PortableModel(ModelInterface):
    """The metadata of a published network."""

    format_version: Literal[1] = Field(1, description="version of these metadata")
    head: Literal["segment", "voxel", "box", "both"] = Field(
        description="segment: classes of voxels; else the head of a detector"
    )
    min_score: float = Field(0.05, ge=0, le=1, description="smallest score of a predicted lesion")
    mirror_axes: tuple[int, ...] = Field((), description="axes along which training mirrored, for --tta")
    calibration: Calibration = Field(Calibration(), description="temperature and thresholds")
    weights_sha256: str = Field("", description="digest of the weights of the run")
    version: str = Field("", description="version of medssl that published the model")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs of the network."""
        voxels = (PROBABILITY,) * (self.head != "box")
        return (*voxels, *((BOX_SCORES, BOX_CORNERS) * (self.head in ("box", "both"))))

    @classmethod
    def read(cls, path: Path) -> "PortableModel":
        """Reads the metadata of an ONNX file; raises BadInput if it is not one of `medssl publish`."""
        text = read_metadata(path).get(METADATA_KEY)
        if text is None:
            raise BadInput(f"{path}: was not written by `medssl publish RUN --onnx`, which records what it expects")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise BadInput(f"{path}: its metadata are damaged; publish the run again") from None
        model = config.check(fields if isinstance(fields, dict) else {}, cls, str(path))
        if not all(side > 0 for side in model.patch_size) or math.prod(model.patch_size) > MAX_PATCH_VOXELS:
            raise BadInput(f"{path}: its windows of {model.patch_size} voxels are impossible; publish the run again")
        if not model.labels or min(model.labels) < 1 or max(model.labels) > 65535:
            raise BadInput(f"{path}: its label values are not 1 to 65535; publish the run again")
        return model
