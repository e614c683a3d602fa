"""Describes a training before its first step: volumes, crops, steps, parameters, memory and minutes."""

import logging
import math

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from medssl.data.pools.crop_dataset import CropDataset
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders, InterleavedDataset
from medssl.training.estimates.step_cost import count_parameters, format_duration, time_steps

log = logging.getLogger(__name__)

MIN_TIMED_STEPS = 100  # remaining steps from which the timing of a few is worth its time


class StartReport(Callback):
    """Logs what a training will do and, by a few timed steps of a copy of its network, what it takes.

    Args:
        config: Length and hardware.
        loaders: The data of the training.
    """

    def __init__(self, config: TrainConfig, loaders: DataLoaders) -> None:
        self.config, self.loaders = config, loaders

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs both lines; a short training, and one of several processes, is not timed."""
        if not trainer.is_global_zero:
            return
        learner, batches = pl_module.learner, self.config.accumulate_grad_batches
        steps = self.config.total_steps - trainer.global_step
        log.info("%s; %.3g M parameters", self.describe_data(steps), count_parameters(learner) / 1e6)
        if steps < MIN_TIMED_STEPS or trainer.world_size > 1:
            return
        device = "cpu" if pl_module.device.type == "cpu" else str(pl_module.device)
        context = trainer.precision_plugin.forward_context
        cost = time_steps(learner, self.loaders, batches, device, context=context)
        duration = format_duration(steps * cost.wall_s)
        log.info("about %.1f GB of memory and %s, at %.2g s a step", cost.memory_gb, duration, cost.wall_s)

    def describe_data(self, steps: int) -> str:
        """Returns the number of volumes, steps and crops, for example `20 volumes, 900 steps of 2 crops of ...`."""
        dataset = self.loaders.dataset
        size = self.loaders.train.batch_size or 1
        crops = size * self.config.accumulate_grad_batches
        parts = [dataset.labelled, dataset.extra] if isinstance(dataset, InterleavedDataset) else [dataset]
        cropped = [part for part in parts if isinstance(part, CropDataset)]
        volumes = sum(map(len, cropped)) or len(self.loaders.case_ids)
        shape = f" of {' x '.join(map(str, cropped[0].patch_size))} voxels" if cropped else ""
        each = f", {math.ceil(steps * crops / volumes)} of each volume" if volumes else ""
        return f"{volumes} volumes; {steps} steps of {crops} crops{shape}{each}"
