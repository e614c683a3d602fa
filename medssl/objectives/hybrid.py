"""Hybrid: a reconstruction and a contrastive objective descend together on one encoder.

Masked reconstruction served segmentation best and the sum served classification best in the FOMO25 challenge (2025),
https://fomo25.github.io.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from medssl import config as configs
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings


class Config(Settings):
    """The two objectives, each with its own settings, and what each counts."""

    name: Literal["hybrid"] = "hybrid"
    reconstruction: configs.named("medssl.objectives") = Field("spark", validate_default=True)  # type: ignore[valid-type]
    contrastive: configs.named("medssl.objectives") = Field("global_local", validate_default=True)  # type: ignore[valid-type]
    reconstruction_weight: float = Field(1.0, ge=0)
    contrastive_weight: float = Field(0.1, ge=0)


class Hybrid(Objective):
    """The weighted sum of two objectives' losses on the same crops."""

    config: Config
    compares = True

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.reconstruction: Objective = configs.class_for_config(config.reconstruction)(config.reconstruction, encoder)
        contrastive: Objective = configs.class_for_config(config.contrastive)(config.contrastive, encoder)
        if not contrastive.compares:
            raise BadInput(f"contrastive.name={config.contrastive.name}: compares nothing; use global_local or vicreg")
        self.contrastive = contrastive
        self.turns = self.reconstruction.turns and self.contrastive.turns
        self.views = max(self.reconstruction.views, self.contrastive.views)

    def fits(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Refuses what either refuses."""
        self.reconstruction.fits(x)
        self.contrastive.fits(x)

    def step(self, crops: Crops) -> Step:
        """Both losses, weighted; every number of both under its objective's name."""
        a, b = self.reconstruction.step(crops), self.contrastive.step(crops)
        loss = self.config.reconstruction_weight * a.loss + self.config.contrastive_weight * b.loss
        logs = {"reconstruction": a.loss.detach(), "contrastive": b.loss.detach()}
        logs |= {f"reconstruction_{name}": value for name, value in a.logs.items()}
        return Step(loss, logs | {f"contrastive_{name}": value for name, value in b.logs.items()}, b.pairs)

    def after_step(self) -> None:
        """What both do after a step."""
        self.reconstruction.after_step()
        self.contrastive.after_step()

    def transferable(self) -> dict[str, nn.Module]:
        """The encoder, and the decoder of the reconstruction where it is the downstream one."""
        return self.contrastive.transferable() | self.reconstruction.transferable()

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """What both show."""
        return self.reconstruction.preview(crops) | self.contrastive.preview(crops)
