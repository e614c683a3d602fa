"""Settings of a sweep and of its arms."""

from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from medssl.data.selection.case_groups import LabelDomain
from medssl.settings import Settings

SCRATCH = "scratch"


class Arm(Settings):
    """How the networks of an arm start, and the settings that differ from the finetuning that all arms share."""

    pretrained: Path | None = Field(None, description="folder of a finished pretraining run")
    pretrain: Path | None = Field(None, description="config of `medssl pretrain`; the sweep runs the pretraining")
    pretraining: dict[str, Any] = Field(
        {}, description="changes to the pretraining of this arm, in addition to those of all arms"
    )
    changes: dict[str, Any] = Field({}, description="changes to the finetuning, by dotted key, as train.epochs: 60")
    labelled_scale: PositiveInt = Field(
        1,
        description="factor on the number of labelled volumes, for arms that know less of each, as with"
        " changes: {num_label_slices: 4}; the table lists the arm at the number without the factor",
    )
    equal_compute_with: str | None = Field(
        None,
        description="name of an arm with pretrain: trains for as many epochs as cost the time of that arm's"
        " pretraining and finetuning together, measured on a few steps of each",
    )

    def scale_count(self, num_labelled: int | None) -> int | None:
        """Returns how many labelled volumes the arm has where the sweep has `num_labelled`; None is all."""
        return num_labelled and num_labelled * self.labelled_scale

    @model_validator(mode="after")
    def _check_start(self) -> "Arm":
        if self.pretrained and self.pretrain:
            raise ValueError("pretrained and pretrain: an arm starts from one of them")
        if self.pretraining and not self.pretrain:
            raise ValueError("pretraining: changes nothing without pretrain, the config that it changes")
        if self.equal_compute_with and (self.pretrained or self.pretrain):
            raise ValueError("equal_compute_with is for an arm that trains from scratch; leave out its pretraining")
        return self


class Sweep(Settings):
    """A few-label comparison of arms; all arms train for the same number of steps unless their `changes` differ."""

    out: Path = Field(description="folder of the runs, the table and the report")
    manifest: Path = Field(description="manifest.csv of the store")
    finetune_config: Path = Field(
        Path("configs/finetune/segment.yaml"), description="config of `medssl finetune` that all arms share"
    )
    changes: dict[str, Any] = Field({}, description="changes to the finetuning of all arms, by dotted key")
    pretraining: dict[str, Any] = Field(
        {}, description="changes to the pretraining of all arms, by dotted key, as its length and patch_size"
    )
    pretraining_minutes: PositiveFloat | None = Field(
        None,
        description="CPU minutes of each pretraining, measured on a few steps, in place of train.epochs of its config",
    )
    pretraining_per_seed: bool = Field(
        False, description="pretrain once for each seed, so that intervals count the luck of a pretraining as well"
    )
    arms: dict[str, Arm] = Field({SCRATCH: Arm()}, min_length=1, description="arms to compare, by name")
    reference: str = Field(SCRATCH, description="name of the arm that all others are compared with")
    num_labelled: tuple[PositiveInt | None, ...] = Field(
        (1, 2, 4, 8, 16, None), min_length=1, description="numbers of labelled volumes; null takes all"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of label subset and training")
    domain: LabelDomain = Field(
        LabelDomain(), description="part of the store whose labels are used; the table compares it with the others"
    )
    lesions: tuple[str, ...] = Field((), description="labels whose detection is evaluated in addition to Dice")
    tolerance_mm: PositiveFloat = Field(2.0, description="tolerance of the surface score NSD in mm")
    num_workers: int = Field(0, ge=0, description="number of cells that train at once; 0 trains in this process")
    scheduler: str | None = Field(None, description="address of a dask scheduler (tcp://...), instead of num_workers")

    part: int = Field(
        0, ge=0, description="with num_parts: number of the part of the trainings that this call does, from 0"
    )
    num_parts: PositiveInt = Field(
        1, description="number of calls that share the trainings, each in a process or on a machine of its own"
    )

    @model_validator(mode="after")
    def _check_part(self) -> "Sweep":
        if self.part >= self.num_parts:
            raise ValueError(f"part={self.part}: parts count from 0 to num_parts - 1, which is {self.num_parts - 1}")
        return self

    @model_validator(mode="after")
    def _check_reference(self) -> "Sweep":
        if self.reference not in self.arms:
            raise ValueError(f"reference: {self.reference!r} is no arm; the arms are {', '.join(self.arms)}")
        pretrained = [name for name, arm in self.arms.items() if arm.pretrain]
        for name, arm in self.arms.items():
            if arm.equal_compute_with not in (None, *pretrained):
                raise ValueError(
                    f"arms.{name}.equal_compute_with: {arm.equal_compute_with!r} is no arm with pretrain; these are"
                    f" {', '.join(pretrained) or 'none'}"
                )
        return self
