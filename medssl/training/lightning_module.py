"""The one LightningModule: trains any objective or task that turns crops into a loss."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int
from lightning import LightningModule, Trainer
from torch import Tensor

from medssl.data.crops import Crops
from medssl.data.pools.pending_crops import PendingCrops
from medssl.errors import BadInput
from medssl.nn.collectives import all_gather_rows, draw_rows, is_true_everywhere
from medssl.objectives.base import Objective
from medssl.tasks.base import Task
from medssl.training.callbacks.plateau_checkpoint import load_optimizer
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import is_own_volume
from medssl.training.loggers import EpochMeans
from medssl.training.lr_schedules import lr_scale
from medssl.training.optimizers import build_optimizer
from medssl.training.processes.sharding import gather_parts

log = logging.getLogger(__name__)


class LitTraining(LightningModule):
    """Lightning wrapper of an objective or a task.

    Args:
        learner: Objective or task to train.
        config: Optimizer, schedule, encoder freezing and channel dropout.
        case_ids: Case of each volume number in `Crops.volume`, for error messages.
        plateau: State that `plateau_checkpoint.read_plateau` returns; the optimizer continues from it.
        after_batch: Called in turn at the very end of a batch, with its index, to save or stop the training.
    """

    def __init__(
        self,
        learner: Objective | Task,
        config: TrainConfig,
        case_ids: Sequence[str] = (),
        plateau: Mapping[str, Tensor] | None = None,
        after_batch: Sequence[Callable[[Trainer, int], None]] = (),
    ) -> None:
        super().__init__()
        self.learner = learner
        self.config = config
        self.case_ids = case_ids
        self.plateau = plateau
        self.after_batch = after_batch
        self.means, self.val_means = EpochMeans(), EpochMeans()
        self.skipped_steps = self.skipped_in_a_row = 0
        self.recent_volumes: list[Tensor] = []  # since the last step whose gradient was finite
        self.positive_pairs: tuple[Tensor, Tensor] | None = None
        self.encoder_weights = [weight for weight in learner.encoder.parameters() if weight.requires_grad]

    def on_before_batch_transfer(self, batch: Crops | PendingCrops, dataloader_idx: int) -> Crops | PendingCrops:
        """Lets an objective draw on the host what it needs, while the crops are still there."""
        return self._prepare(batch) if isinstance(batch, Crops) else batch

    def transfer_batch_to_device(
        self, batch: Crops | PendingCrops, device: torch.device, dataloader_idx: int
    ) -> Crops | PendingCrops:
        """Copies a batch to the device; from page-locked memory while the device computes."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def on_after_batch_transfer(self, batch: Crops | PendingCrops, dataloader_idx: int) -> Crops:
        """Augments crops that the loader has not augmented, on the device; an objective draws what it needs then."""
        return batch if isinstance(batch, Crops) else self._prepare(batch.augment())

    def training_step(self, crops: Crops, index: int) -> Tensor:
        """Returns the loss of one batch.

        Raises:
            BadInput: Voxels or the loss are not finite; the message names the cases.
        """
        # Voxels lie in [0, 1], so their sum is finite if all of them are. Some losses ignore other voxels silently.
        volumes = all_gather_rows(crops.volume)
        self.recent_volumes.append(volumes)
        finite = all_gather_rows(torch.isfinite(crops.x.flatten(1).sum(1)))
        if not finite.all():
            raise BadInput(
                f"{self._format_cases(volumes[~finite])}: voxels are not finite (NaN or infinity);"
                " correct the image and run ingest again"
            )
        if self.config.channel_dropout:
            crops = drop_channels(crops, self.config.channel_dropout, self._make_generator(index))
        step = self.learner.step(crops)
        self.positive_pairs = step.positive_pairs
        if not is_true_everywhere(bool(torch.isfinite(step.loss)), crops.x.device):
            raise BadInput(
                f"step {self.global_step}: the loss is {step.loss.item()} on {self._format_cases(volumes)};"
                " check these cases, or lower train.lr; resume=true continues from the last checkpoint"
            )
        self.means.add({"loss": step.loss.detach(), **step.logs}, len(crops.x))
        return step.loss

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clips the norm of the gradient; a step whose gradient is not finite is skipped: weights and moments stay.

        Raises:
            BadInput: Too many steps in a row were skipped; the message names the cases.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = gather_parts(torch.nn.utils.clip_grad_norm_(weights, self.config.gradient_clip))
        if torch.isfinite(norm):
            self.skipped_in_a_row = 0
            self.recent_volumes.clear()
            return
        for weight in weights:
            weight.grad = None  # optimizers leave a weight without a gradient as it is
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        cases, step = self._format_cases(torch.cat(self.recent_volumes).unique()), self.global_step + 1
        if self.skipped_in_a_row > self.config.max_skipped_steps:
            raise BadInput(
                f"step {step}: the gradient is not finite, {self.skipped_in_a_row} times in a row, on {cases};"
                " check these cases, or lower train.lr in another run; resume=true continues from the last checkpoint"
            )
        log.warning("step %d is skipped: its gradient is not finite, on %s", step, cases)

    def validation_step(self, crops: Crops, index: int) -> None:
        """Scores a task on one whole volume."""
        if not isinstance(self.learner, Task):
            return
        scores = self.learner.validate(crops)
        if is_own_volume(crops):
            self.val_means.add({f"val_{name}": value for name, value in scores.items()}, 1)

    def on_validation_epoch_end(self) -> None:
        """Logs the mean scores over all volumes."""
        self.log_dict(self.val_means.pop(), on_step=False, on_epoch=True, batch_size=1)

    def on_train_batch_end(self, outputs: object, batch: Crops, index: int) -> None:
        """Calls the learner's `after_step` hook once per optimizer step, logs at the end of an epoch, and saves."""
        if (index + 1) % self.config.accumulate_grad_batches == 0:
            self.learner.after_step()
        if self.trainer.is_last_batch:
            skipped = {"skipped_steps": float(self.skipped_steps)} if self.skipped_steps else {}
            self.log_dict(self.means.pop() | skipped, on_step=False, on_epoch=True, batch_size=1)
        for hook in self.after_batch:
            hook(self.trainer, index)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the means of the unfinished epoch and the number of skipped steps."""
        checkpoint["means"] = self.means.state_dict()
        checkpoint["skipped"] = (self.skipped_steps, self.skipped_in_a_row)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what `on_save_checkpoint` added."""
        self.means.load_state_dict(checkpoint["means"])
        self.skipped_steps, self.skipped_in_a_row = checkpoint["skipped"]

    def on_train_batch_start(self, batch: Crops, index: int) -> None:
        """Freezes the encoder, including the running statistics of its norms, during the first steps."""
        frozen = not self.encoder_weights or self.global_step < self.config.frozen_steps
        for weight in self.encoder_weights:
            weight.requires_grad_(not frozen)
        self.learner.encoder.train(not frozen)

    def configure_optimizers(self) -> dict:
        """Returns the configured optimizer and schedule; both continue from the plateau, if there is one."""
        optimizer, continued = build_optimizer(self.learner, self.config), self.plateau is not None
        if self.plateau is not None:
            load_optimizer(optimizer, self.learner, self.plateau)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_scale(step, self.config, continued))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _prepare(self, crops: Crops) -> Crops:
        if isinstance(self.learner, Objective) and self.trainer.training:
            return self.learner.prepare(crops)
        return crops

    def _format_cases(self, volumes: Int[Tensor, "n"]) -> str:
        return ", ".join(self.case_ids[n] if self.case_ids else f"volume {n}" for n in volumes.tolist())

    def _make_generator(self, index: int) -> torch.Generator:
        """Seeds a generator from seed, epoch and batch alone, so that a resumed training draws the same numbers."""
        return torch.Generator().manual_seed(hash((self.config.seed, self.current_epoch, index)) % 2**63)


def drop_channels(crops: Crops, probability: float, generator: torch.Generator) -> Crops:
    """Blanks each channel of each crop with a probability, but never all channels of a crop.

    The original channels remain in `Crops.x_all_channels`, for objectives that reconstruct them.

    After Neverova et al., "ModDrop: adaptive multi-modal gesture recognition" (2015),
    https://arxiv.org/abs/1501.00102. A blank channel needs no mark that it is missing: a first convolution responds to
    it as the same convolution without that channel.
    """
    order = draw_rows(crops.x.shape[:3], generator)
    # The channel with the largest random number always remains.
    present = (order >= probability) | (order == order.amax(2, keepdim=True))
    return replace(crops, x=crops.x * present.to(crops.x)[..., None, None, None], x_all_channels=crops.x)
