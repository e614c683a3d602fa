"""Expands a schedule name and the few-label preset into settings, and fits flips to the classes."""

import logging
from typing import Any, Literal

from medssl.data.classes import Classes
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.settings import Settings

log = logging.getLogger(__name__)

Schedule = Literal["full", "scratch", "warmup", "sawtooth", "layer-wise", "discriminative", "frozen_encoder", "lora"]

SCHEDULE_PRESETS: dict[str, dict[str, Any]] = {
    "warmup": {"warmup_fraction": 0.2},
    "sawtooth": {"schedule": "sawtooth", "freeze_fraction": 0.2, "warmup_fraction": 0.2},
    "layer-wise": {"layer_decay": 0.65},
    "discriminative": {"head_lr_scale": 5.0, "finest_lr_scale": 0.5, "coarser_lr_scale": 0.05},
    "frozen_encoder": {"freeze_fraction": 1.0},
}
# By the largest number of labelled volumes that a preset is for: fewer volumes repeat more often in a training, so they
# are augmented and regularized more.
FEW_LABEL_PRESETS: dict[int, dict[str, dict[str, Any]]] = {
    4: {
        "augment": {"probability": 0.5, "elastic": 0.15, "rotate_deg": 20.0, "scale": 0.2},
        "train": {"weight_decay": 0.1},
    },
    16: {"augment": {"probability": 0.4}, "train": {"weight_decay": 0.07}},
}


def apply_presets(values: dict[str, Any]) -> dict[str, Any]:
    """Adds the settings that `schedule` and `few_label_preset` stand for; settings that are given keep their value.

    Args:
        values: Unvalidated settings of a finetuning. The few-label preset depends on their `num_labelled`.
    """
    few_label = _few_label_preset(values.get("num_labelled")) if values.get("few_label_preset") else {}
    presets = {
        "augment": few_label.get("augment", {}),
        "train": SCHEDULE_PRESETS.get(values.get("schedule", ""), {}) | few_label.get("train", {}),
    }
    return values | {group: preset | _as_dict(values.get(group, {})) for group, preset in presets.items() if preset}


def _few_label_preset(num_labelled: Any) -> dict[str, dict[str, Any]]:
    """Returns the preset for a number of labelled volumes; empty for many volumes or an unknown number."""
    for limit in sorted(FEW_LABEL_PRESETS):
        if isinstance(num_labelled, int) and num_labelled <= limit:
            return FEW_LABEL_PRESETS[limit]
    return {}


def _as_dict(group: Any) -> dict[str, Any]:
    return group.model_dump(exclude_unset=True) if isinstance(group, Settings) else dict(group)


def add_flip_pairs(augment: AugmentConfig, classes: Classes) -> AugmentConfig:
    """Adds the classes that a left-right flip exchanges, or disables that flip if a class has no counterpart."""
    pairs = classes.find_left_right_pairs()
    if pairs is None and augment.flip[0]:
        log.info("left-right flips are disabled: a class of one side has no counterpart of the other side")
    flip = augment.flip if pairs is not None else (False, *augment.flip[1:])
    return augment.model_copy(update={"flip": flip, "left_right_pairs": pairs or ()})
