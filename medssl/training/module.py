"""The one LightningModule: whatever has a `step` from crops to a loss is trained by it."""

import math
from collections.abc import Sequence

import torch
from lightning import LightningModule
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.objectives.base import Objective
from medssl.tasks.base import Task
from medssl.training.plan import Plan


class Training(LightningModule):
    """Trains an objective or a task by a plan: AdamW, linear warm-up, cosine, clipped gradients."""

    def __init__(self, learner: Objective | Task, plan: Plan, cases: Sequence[str] = ()) -> None:
        super().__init__()
        self.learner = learner
        self.plan = plan
        self.cases = cases

    def training_step(self, crops: Crops, index: int) -> Tensor:
        """The loss of one batch; a loss that is not finite stops the training and names the volumes."""
        step = self.learner.step(crops)
        if not torch.isfinite(step.loss):
            names = [self.cases[row] if self.cases else f"volume {row}" for row in crops.volume.tolist()]
            said = f"step {self.global_step}: the loss is {step.loss.item()} on {', '.join(names)}"
            raise BadInput(f"{said}; look at these cases, or lower plan.lr; resume=true goes on from the last epoch")
        self.log_dict({"loss": step.loss.detach(), **step.logs}, on_step=False, on_epoch=True, batch_size=len(crops.x))
        return step.loss

    def validation_step(self, crops: Crops, index: int) -> None:
        """A whole volume at a time: what a task scores on it."""
        if not isinstance(self.learner, Task):
            return
        scores = {f"val_{name}": value for name, value in self.learner.validate(crops).items()}
        self.log_dict(scores, on_step=False, on_epoch=True, batch_size=1)

    def on_train_batch_end(self, outputs: object, batch: Crops, index: int) -> None:
        """Lets the learner follow its own weights, once an optimiser step."""
        if (index + 1) % self.plan.accumulate == 0:
            self.learner.after_step()

    def configure_optimizers(self) -> dict:
        """AdamW without decay on norms, biases and tokens."""
        optimizer = torch.optim.AdamW(_groups(self.learner, self.plan), weight_decay=self.plan.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, self.plan))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warm_cosine(step: int, plan: Plan) -> float:
    """The share of the learning rate at a step: linear from 0, then half a cosine down to 0."""
    warm = plan.warmup * plan.total
    if step < warm:
        return (step + 1) / (warm + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, plan.total - warm))))


def _groups(learner: nn.Module, plan: Plan) -> list[dict]:
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, weight in learner.named_parameters():
        if weight.requires_grad:
            groups.setdefault((name.startswith("encoder."), weight.ndim > 1 and "token" not in name), []).append(weight)
    return [
        {
            "params": weights,
            "lr": plan.lr * (plan.encoder_lr if encoder else 1),
            "weight_decay": plan.weight_decay if decays else 0.0,
        }
        for (encoder, decays), weights in groups.items()
    ]
