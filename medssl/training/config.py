"""How long, how fast and on what a network is trained."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from medssl.settings import Settings


class Plan(Settings):
    """Length, optimiser, schedule and machine of a training; `epochs` x `steps` optimiser steps.

    Sources: AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019),
    https://arxiv.org/abs/1711.05101. `lamb`: You et al., "Large batch optimization for deep learning: training BERT in
    76 minutes" (2020), https://arxiv.org/abs/1904.00962. `cosine`: Loshchilov and Hutter, "SGDR" (2017),
    https://arxiv.org/abs/1608.03983. `infinite`: Singh et al., "Beyond cosine decay" (2025),
    https://arxiv.org/abs/2503.02844. `sawtooth`: Wald et al., "An OpenMind for 3D medical vision self-supervised
    learning" (2025), https://arxiv.org/abs/2412.17041. `layer_decay`: Bao et al., "BEiT" (2022),
    https://arxiv.org/abs/2106.08254. `heads_lr`: fresh heads distort good features before they fit them, Kumar et al.,
    "Fine-tuning can distort pretrained features and underperform out-of-distribution" (2022),
    https://arxiv.org/abs/2202.10054.
    """

    epochs: PositiveInt = 20
    steps: PositiveInt = 50
    batch: PositiveInt = 2
    optimizer: Literal["adamw", "lamb"] = "adamw"
    lr: PositiveFloat = 1e-3
    encoder_lr: PositiveFloat = Field(1.0, description="the encoder's learning rate as a share of lr")
    heads_lr: PositiveFloat = Field(1.0, description="learning rate of the heads as a share of lr")
    finest_lr: PositiveFloat = Field(1.0, description="that of the finest level of encoder and decoder")
    coarser_lr: PositiveFloat = Field(1.0, description="that of their other levels")
    layer_decay: float = Field(1.0, gt=0, le=1, description="each encoder level learns so much of the next coarser one")
    freeze: float = Field(0.0, ge=0, le=1, description="share of all steps in which the encoder stands still")
    schedule: Literal["cosine", "infinite", "sawtooth", "constant"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="share of all steps; sawtooth: of each tooth")
    cooldown: float = Field(0.3, ge=0, le=1, description="infinite: share of all steps from lr down to its plateau")
    plateau: float = Field(0.55, gt=0, le=1, description="infinite: the constant learning rate as a share of lr")
    anneal: float = Field(0.2, ge=0, le=1, description="infinite: share of all steps, the last ones, from there to 0")
    weight_decay: float = Field(0.05, ge=0)
    clip: PositiveFloat = 1.0
    accumulate: PositiveInt = 1
    channel_dropout: float = Field(0.0, ge=0, lt=1, description="chance of each channel of a crop to be missing")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0 keeps the last ones")
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(str)] = "32"
    workers: int = Field(0, ge=0)
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _phases_fit(self) -> "Plan":
        if self.schedule == "infinite" and self.warmup + self.cooldown + self.anneal > 1:
            raise ValueError("warmup, cooldown and anneal are shares of all steps: together at most 1")
        if self.schedule == "sawtooth" and not 0 < self.freeze < 1:
            raise ValueError(f"sawtooth: its first tooth trains the decoder alone; freeze is {self.freeze}, give 0.2")
        return self

    @property
    def total(self) -> int:
        """All optimiser steps."""
        return self.epochs * self.steps

    @property
    def frozen(self) -> int:
        """The first steps, in which the encoder stands still."""
        return round(self.freeze * self.total)

    @property
    def annealing(self) -> int:
        """The step at which an infinite schedule leaves its plateau, and from which another run can go on."""
        return self.total - round(self.anneal * self.total)
