"""How long, how fast and on what a network is trained."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from medssl.settings import Settings


class Plan(Settings):
    """Length, optimiser and machine of a training; `epochs` x `steps` optimiser steps."""

    epochs: PositiveInt = 20
    steps: PositiveInt = 50
    batch: PositiveInt = 2
    lr: PositiveFloat = 1e-3
    encoder_lr: PositiveFloat = Field(1.0, description="the encoder's learning rate as a share of lr")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps")
    weight_decay: float = Field(0.05, ge=0)
    clip: PositiveFloat = 1.0
    accumulate: PositiveInt = 1
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps the last ones")
    precision: Literal["32", "bf16"] = "32"
    workers: int = Field(0, ge=0)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    seed: int = 0

    @property
    def total(self) -> int:
        """All optimiser steps."""
        return self.epochs * self.steps
