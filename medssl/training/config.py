"""Configuration of a training: length, optimizer, learning-rate schedule and hardware."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from medssl.settings import Settings


class TrainConfig(Settings):
    """Settings of the training loop, which runs for `epochs` x `steps_per_epoch` optimizer steps.

    Sources: AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019),
    https://arxiv.org/abs/1711.05101. `lamb`: You et al., "Large batch optimization for deep learning: training BERT in
    76 minutes" (2020), https://arxiv.org/abs/1904.00962. `cosine`: Loshchilov and Hutter, "SGDR" (2017),
    https://arxiv.org/abs/1608.03983. `poly` with `sgd`: Isensee et al., "nnU-Net" (2021),
    https://doi.org/10.1038/s41592-020-01008-z. `infinite`: Singh et al., "Beyond cosine decay" (2025),
    https://arxiv.org/abs/2503.02844. `sawtooth`: Wald et al., "An OpenMind for 3D medical vision self-supervised
    learning" (2025), https://arxiv.org/abs/2412.17041. `layer_decay`: Bao et al., "BEiT" (2022),
    https://arxiv.org/abs/2106.08254. `head_lr_scale`: fresh heads distort good features before they fit them, Kumar et
    al., "Fine-tuning can distort pretrained features and underperform out-of-distribution" (2022),
    https://arxiv.org/abs/2202.10054.
    """

    epochs: PositiveInt = Field(20, description="number of epochs")
    steps_per_epoch: PositiveInt = Field(
        50, description="optimizer steps per epoch, independent of the number of volumes"
    )
    batch_size: PositiveInt = Field(
        2,
        description="volumes per batch over all processes, one crop or several views of each; a teacher adds as many"
        " unlabelled crops",
    )
    optimizer: Literal["adamw", "lamb", "sgd"] = Field(
        "adamw", description="adamw, lamb for large batches, or sgd with Nesterov momentum"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="adamw, lamb: decay of the mean of the gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="adamw, lamb: decay of the mean of the squared gradient")
    momentum: float = Field(0.99, gt=0, lt=1, description="sgd: Nesterov momentum")
    lr: PositiveFloat = Field(1e-3, description="peak learning rate")
    encoder_lr_scale: PositiveFloat = Field(1.0, description="factor on lr for the encoder")
    head_lr_scale: PositiveFloat = Field(1.0, description="factor on lr for the heads")
    finest_lr_scale: PositiveFloat = Field(1.0, description="factor on lr for the finest encoder and decoder level")
    coarser_lr_scale: PositiveFloat = Field(1.0, description="factor on lr for the other encoder and decoder levels")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor on lr of an encoder level, relative to the next coarser level; 1 is off"
    )
    freeze_fraction: float = Field(
        0.0, ge=0, le=1, description="fraction of all steps, from the start, in which the encoder is frozen"
    )
    schedule: Literal["cosine", "poly", "infinite", "sawtooth", "constant"] = Field(
        "cosine", description="learning-rate schedule after the warm-up"
    )
    warmup_fraction: float = Field(
        0.05, ge=0, lt=1, description="fraction of all steps with linear warm-up; sawtooth: of the steps of each tooth"
    )
    decay_fraction: float = Field(
        0.3, ge=0, le=1, description="infinite: fraction of all steps in which lr decays to the plateau"
    )
    plateau_lr_scale: float = Field(0.55, gt=0, le=1, description="infinite: factor on lr at the plateau")
    anneal_fraction: float = Field(
        0.2,
        ge=0,
        le=1,
        description="infinite: fraction of all steps, at the end, in which lr anneals from plateau to 0",
    )
    weight_decay: float = Field(
        0.05, ge=0, description="weight decay, decoupled except for sgd; norms, biases and tokens do not decay"
    )
    gradient_clip: PositiveFloat = Field(1.0, description="maximum norm of the gradient")
    max_skipped_steps: int = Field(
        5,
        ge=0,
        description="largest number of optimizer steps in a row that are skipped because the gradient is not finite;"
        " one more stops the training",
    )
    accumulate_grad_batches: PositiveInt = Field(1, description="batches per optimizer step")
    channel_dropout: float = Field(
        0.0, ge=0, lt=1, description="probability that a channel of a crop is blanked; one channel always remains"
    )
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of the exponential moving average of the weights; 0 keeps the last weights"
    )
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(str)] = Field(
        "32", description="32, or bf16 for mixed precision"
    )
    num_workers: int | None = Field(
        None,
        ge=0,
        description="data loader processes of each process; 0 loads in the training's process; null is 0 without a GPU,"
        " and with GPUs the cores of each, up to 12",
    )
    augment_on: Literal["loader", "device"] = Field(
        "loader",
        description="where crops are augmented: loader, in the loader processes, or device, after their transfer, on"
        " the GPU if there is one; the crops are the same",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="device type; auto uses a GPU if present")
    devices: PositiveInt = Field(
        1,
        description="processes on each node, each with a GPU of its own if there are any; they share batch_size, and"
        " their number changes neither the steps nor the result",
    )
    num_nodes: PositiveInt = Field(1, description="machines; more than one are started by torchrun or `medssl slurm`")
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="how several processes update the weights: ddp, each all of them, or fsdp, each its part, which"
        " divides the memory of gradients and moments among them",
    )
    tracker: Literal["mlflow", "wandb"] | None = Field(
        None,
        description="tracker that gets curves and settings in addition to the folder of the run: mlflow, or wandb for"
        " Weights & Biases; null is none",
    )
    seed: int = Field(0, description="seed of fresh weights, crop positions, augmentation and masks")

    @model_validator(mode="after")
    def _check_schedule_and_batch(self) -> "TrainConfig":
        phases = self.warmup_fraction + self.decay_fraction + self.anneal_fraction
        if self.schedule == "infinite" and phases > 1:
            raise ValueError(
                "schedule=infinite: warmup_fraction + decay_fraction + anneal_fraction is"
                f" {phases:.4g}; lower them to at most 1"
            )
        if self.schedule == "sawtooth" and not 0 < self.freeze_fraction < 1:
            raise ValueError(
                "schedule=sawtooth: the first tooth trains the decoder alone, so freeze_fraction must lie between"
                f" 0 and 1; it is {self.freeze_fraction}, for example give 0.2"
            )
        excluded = {"ema_decay": 0.0, "freeze_fraction": 0.0}
        changed = [f"{name}={getattr(self, name)}" for name, value in excluded.items() if getattr(self, name) != value]
        changed += [f"schedule={self.schedule}"] if self.schedule == "infinite" else []
        changed += [f"optimizer={self.optimizer}"] if self.optimizer == "lamb" else []
        if self.strategy == "fsdp" and changed:
            raise ValueError(f"strategy=fsdp does not divide {', '.join(changed)}; leave it out, or set strategy=ddp")
        if self.batch_size % self.num_processes:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be shared equally by devices={self.devices} x"
                f" num_nodes={self.num_nodes} processes; give a multiple of {self.num_processes}"
            )
        return self

    @property
    def num_processes(self) -> int:
        """Number of processes that train together, over all nodes."""
        return self.devices * self.num_nodes

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def frozen_steps(self) -> int:
        """Number of optimizer steps, from the start, in which the encoder is frozen."""
        return round(self.freeze_fraction * self.total_steps)

    @property
    def anneal_start(self) -> int:
        """Step at which an infinite schedule leaves its plateau; another run can continue from there."""
        return self.total_steps - round(self.anneal_fraction * self.total_steps)
