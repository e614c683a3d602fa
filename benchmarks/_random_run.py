"""A finished run of a network with random weights, for what a prediction costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medssl.models.trained_model import TrainedModel
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.settings import Settings


class RandomRunSettings(Settings):
    """The settings of a run that publishing reads."""

    run: Path


def write_random_run(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Writes a run that segments, and returns its folder.

    Args:
        folder: The folder of the run.
        settings: The encoder, patch_size, spacing_mm and labels of its network.
    """
    task = {"in_channels": 1, "normalization": {}, "task": {"name": "segment"}}
    network = TrainedModel.model_validate(task | dict(settings))
    torch.manual_seed(0)
    own_settings = RandomRunSettings(run=folder)
    run = Run.create(folder, own_settings, "finetune", network=network.model_dump(mode="json"))
    weight_transfer.save_parts(network.build_task().transferable(), run.path / "weights.safetensors")
    run.close()
    return run.path
