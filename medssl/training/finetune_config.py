"""Settings of a finetuning."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, model_validator

from medssl.config import PatchSize, module_choice
from medssl.data.selection.case_groups import LabelDomain
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.nn.encoder import EncoderChoice, EncoderConfig
from medssl.planning.auto_settings import fill_auto
from medssl.settings import Settings
from medssl.tasks import joint_segment, segment
from medssl.training import presets
from medssl.training.config import TrainConfig
from medssl.training.fault_tolerance.limits import LimitConfig
from medssl.training.semi_supervised.config import SemiSupervisedConfig


class FinetuneConfig(Settings):
    """Settings of a finetuning; without `pretrained` the same training starts from scratch."""

    run: Path = Field(description="folder to write the run to")
    manifest: Path = Field(description="manifest.csv of a store with labels")
    pretrained: Path | None = Field(None, description="finished run to start from; null trains from scratch")
    channels: tuple[int, ...] = Field(
        (), description="input channels of the pretraining that these scans have, in their order; [] for all"
    )
    num_labelled: PositiveInt | None = Field(None, description="number of labelled volumes to use; null uses all")
    num_label_slices: PositiveInt | None = Field(
        None, description="slices of each labelled volume whose label is used, to compare budgets; null uses all"
    )
    label_domain: LabelDomain = Field(LabelDomain(), description="part of the store whose labels are used")
    classes: tuple[str, ...] = Field(
        (), description="names of the classes to learn; the others become background; [] learns all"
    )
    task: module_choice("medssl.tasks") = Field(  # type: ignore[valid-type]
        segment.Config(),
        description="task to learn: segment, joint_segment, detect, classify or in_context, with its settings",
    )
    encoder: EncoderChoice = Field(
        EncoderConfig(), description="architecture of the encoder; by default that of pretrained, if given"
    )
    patch_size: PatchSize = Field(
        (64, 64, 64), description="size of the training crops in voxels; one number is a cube"
    )
    foreground_fraction: float = Field(
        0.67, ge=0, le=1, description="fraction of the crops that are centred on a voxel of a class"
    )
    schedule: presets.Schedule = Field(
        "full", description="preset for how pretrained weights are trained; sets keys of train"
    )
    rescale_kernel_norms: bool = Field(
        False, description="rescale pretrained kernels to the norm of fresh ones, so that they learn as fast"
    )
    lora_rank: PositiveInt = Field(4, description="schedule=lora: rank of the adapters")
    few_label_preset: bool = Field(
        False, description="stronger augmentation and weight decay for few labels; sets keys of augment and train"
    )
    semi_supervised: SemiSupervisedConfig = Field(
        SemiSupervisedConfig(), description="how to learn from the volumes of split train without labels"
    )
    augment: AugmentConfig = Field(AugmentConfig(), description="augmentation of the training crops")
    train: TrainConfig = Field(TrainConfig(), description="length, optimizer, schedule and hardware of the training")
    val_every_n_epochs: PositiveInt = Field(5, description="epochs between two validations")
    max_val_cases: int = Field(
        8, ge=0, description="largest number of cases of split val to select weights on; 0 keeps the last weights"
    )
    fold: int = Field(0, ge=0, description="with num_folds: number of the fold that is split val, from 0")
    num_folds: int | None = Field(
        None, ge=2, description="number of folds of a cross-validation over the labelled patients; null uses the splits"
    )
    seed: int = Field(0, description="seed of the selection of labelled volumes and of the folds")
    allow_missing_classes: bool = Field(False, description="continue if no labelled volume contains some class")
    allow_overlap: bool = Field(False, description="continue if training or pretraining has seen test cases")
    allow_normalization_mismatch: bool = Field(
        False, description="continue if the pretraining used another intensity normalization"
    )
    limits: LimitConfig = Field(LimitConfig(), description="when the training saves its state and when it stops early")
    resume: bool = Field(False, description="continue the run, or start it if there is none; a finished one is kept")

    @model_validator(mode="before")
    @classmethod
    def _apply_presets(cls, values: Any) -> Any:
        return presets.apply_presets(fill_auto(values, "finetune")) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_pretrained(self) -> "FinetuneConfig":
        if self.schedule == "scratch" and self.pretrained:
            raise ValueError(
                "schedule=scratch starts from random weights; leave pretrained out, or choose another schedule"
            )
        if self.schedule in ("frozen_encoder", "lora") and not self.pretrained:
            raise ValueError(f"schedule={self.schedule} does not train the encoder's weights; give pretrained=RUN")
        if self.schedule in ("sawtooth", "layer-wise", "discriminative") and not self.pretrained:
            raise ValueError(f"schedule={self.schedule} is for pretrained weights; give pretrained=RUN")
        if self.rescale_kernel_norms and not self.pretrained:
            raise ValueError("rescale_kernel_norms=true is for pretrained weights; give pretrained=RUN")
        if self.classes and self.semi_supervised.method in ("label-propagation", "auto"):
            raise ValueError(f"semi_supervised={self.semi_supervised.method} learns all classes; leave `classes` out")
        if isinstance(self.task, joint_segment.Config) and self.task.transform == "mirror" and self.augment.flip[0]:
            raise ValueError(
                f"task.transform=mirror: crops that augment.flip mirrors cannot be told from others; give"
                f" augment.flip={json.dumps([False, *self.augment.flip[1:]])}, or task.transform=turns"
            )
        return self

    def with_presets(self, num_labelled: int) -> "FinetuneConfig":
        """Returns the settings with the few-label preset for a number of labelled volumes, if all of them are used."""
        if self.num_labelled is not None:
            return self
        values = {name: getattr(self, name) for name in self.model_fields_set}
        preset = FinetuneConfig.model_validate(values | {"num_labelled": num_labelled})
        return preset.model_copy(update={"num_labelled": None})
