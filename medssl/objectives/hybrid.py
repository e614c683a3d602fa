"""Trains one encoder with the sum of a reconstruction and a contrastive objective.

In the FOMO25 challenge (2025), https://fomo25.github.io, masked reconstruction alone was best for segmentation and the
sum was best for classification.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medssl.config import class_for_config, module_choice
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings


class Config(Settings):
    """The settings of both objectives and their weights."""

    name: Literal["hybrid"] = Field("hybrid", description="name of the objective")
    reconstruction: module_choice("medssl.objectives") = Field(  # type: ignore[valid-type]
        "spark", validate_default=True, description="the reconstruction objective with its settings"
    )
    contrastive: module_choice("medssl.objectives") = Field(  # type: ignore[valid-type]
        "global_local", validate_default=True, description="the contrastive objective with its settings"
    )
    reconstruction_weight: float = Field(1.0, ge=0, description="weight of the loss of the reconstruction objective")
    contrastive_weight: float = Field(0.1, ge=0, description="weight of the loss of the contrastive objective")


class Hybrid(Objective):
    """The weighted sum of the losses of two objectives on the same crops."""

    config: Config
    is_contrastive = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.reconstruction: Objective = class_for_config(config.reconstruction)(config.reconstruction, encoder)
        contrastive: Objective = class_for_config(config.contrastive)(config.contrastive, encoder)
        if not contrastive.is_contrastive:
            raise BadInput(
                f"contrastive.name={config.contrastive.name}: not a contrastive objective; use global_local or vicreg"
            )
        self.contrastive = contrastive
        self.allows_spatial_augmentation = (
            self.reconstruction.allows_spatial_augmentation and self.contrastive.allows_spatial_augmentation
        )
        self.views = max(self.reconstruction.views, self.contrastive.views)

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if one of the objectives cannot train on crops of this shape."""
        self.reconstruction.check_crop(x)
        self.contrastive.check_crop(x)

    def step(self, crops: Crops) -> Step:
        """Computes both losses; the logs of each objective are prefixed."""
        reconstruction, contrastive = self.reconstruction.step(crops), self.contrastive.step(crops)
        loss = (
            self.config.reconstruction_weight * reconstruction.loss + self.config.contrastive_weight * contrastive.loss
        )
        logs = {"reconstruction": reconstruction.loss.detach(), "contrastive": contrastive.loss.detach()}
        logs |= {f"reconstruction_{name}": value for name, value in reconstruction.logs.items()}
        logs |= {f"contrastive_{name}": value for name, value in contrastive.logs.items()}
        return Step(loss, logs, contrastive.positive_pairs)

    def after_step(self) -> None:
        """Runs `after_step` of both objectives."""
        self.reconstruction.after_step()
        self.contrastive.after_step()

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder, preferably the one of the reconstruction objective."""
        return self.contrastive.transferable() | self.reconstruction.transferable()

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the previews of both objectives."""
        return self.reconstruction.preview(crops) | self.contrastive.preview(crops)
