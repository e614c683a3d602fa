"""Configuration of semi-supervised finetuning."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from medssl.settings import Settings


class SemiSupervisedConfig(Settings):
    """How a finetuning learns from unlabelled volumes; a method name alone stands for its defaults.

    `mean-teacher`: Tarvainen and Valpola, "Mean teachers are better role models" (2017),
    https://arxiv.org/abs/1703.01780: the student predicts what the teacher predicts for the same crop with other
    intensities.
    `pseudo-label`: confident voxels of the teacher are labels, as in the self-training of Chaitanya et al., "Local
    contrastive loss with pseudo-label based self-training" (2023), https://doi.org/10.1016/j.media.2023.102792, with
    their Mixup: Zhang et al., "mixup" (2018), https://arxiv.org/abs/1710.09412. Deviation: the averaged weights make
    new pseudo-labels at each step instead of in rounds, so that all arms of a comparison take the same steps.
    `copy-paste`: Bai et al., "Bidirectional copy-paste for semi-supervised medical image segmentation" (2023),
    https://arxiv.org/abs/2305.00673: a box of a labelled crop in an unlabelled one and the reverse, with the teacher's
    labels around or within it (`medssl.training.semi_supervised.copy_paste`).
    `label-propagation`: every second crop is from an unlabelled volume, with labels that registration to an atlas
    transfers from the labelled volumes (`medssl.training.semi_supervised.label_propagation`).
    `auto`: label propagation with an atlas, else a mean teacher, if that is better than the labels alone on labelled
    patients who are left out one at a time (`medssl.training.semi_supervised.method_choice`).
    """

    method: Literal["none", "mean-teacher", "pseudo-label", "copy-paste", "label-propagation", "auto"] = Field(
        "none", description="how to learn from the volumes of split train without labels; auto cross-validates first"
    )
    atlas: Path | None = Field(
        None, description="label-propagation, auto: the folder that `medssl atlas` wrote for these volumes"
    )
    weight: PositiveFloat = Field(1.0, description="factor on the loss of unlabelled crops after the ramp-up")
    rampup_fraction: float = Field(
        0.4, gt=0, le=1, description="fraction of all steps in which the factor on the loss of unlabelled crops grows"
    )
    perturbation: float = Field(
        0.5, ge=0, le=1, description="mean-teacher: strength of the intensity changes between student and teacher"
    )
    confidence: float = Field(
        0.9, ge=0, le=1, description="pseudo-label: smallest probability at which a voxel becomes a label"
    )
    mixup: float = Field(
        0.0, ge=0, description="pseudo-label: both parameters of the Beta distribution of Mixup; 0 is off"
    )

    pseudo_weight: float = Field(
        0.5, ge=0, description="copy-paste: factor on the loss of voxels whose label is the teacher's"
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_method_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_atlas(self) -> "SemiSupervisedConfig":
        if self.method == "label-propagation" and self.atlas is None:
            raise ValueError("method=label-propagation needs an atlas; give atlas=FOLDER, as `medssl atlas` wrote it")
        if self.method not in ("label-propagation", "auto") and self.atlas is not None:
            raise ValueError(
                f"atlas has no use with method={self.method}; leave it out, or set method=label-propagation"
            )
        return self
