"""The one LightningModule: whatever has a `step` from crops to a loss is trained by it."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from lightning import LightningModule
from torch import Tensor

from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.objectives.base import Objective
from medssl.tasks.base import Task
from medssl.training.callbacks.plateau_checkpoint import recall
from medssl.training.channel_dropout import without_some
from medssl.training.config import Plan
from medssl.training.lr_schedules import share
from medssl.training.optimizers import optimizer


class Training(LightningModule):
    """Trains an objective or a task by a plan."""

    def __init__(
        self, learner: Objective | Task, plan: Plan, cases: Sequence[str] = (),
        before: Mapping[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.learner = learner
        self.plan = plan
        self.cases = cases
        self.before = before
        self.pairs: tuple[Tensor, Tensor] | None = None
        self.body = [weight for weight in learner.encoder.parameters() if weight.requires_grad]

    def training_step(self, crops: Crops, index: int) -> Tensor:
        """The loss of one batch; voxels or a loss that are not finite stop the training and name the volumes."""
        # A sum is finite where all voxels are, which lie in [0, 1]; some losses pass over the others without a word.
        whole = torch.isfinite(crops.x.flatten(1).sum(1))
        if not whole.all():
            raise BadInput(f"{self._named(crops.volume[~whole])}: voxels are no numbers (NaN or infinity); ingest anew")
        if self.plan.channel_dropout:
            crops = without_some(crops, self.plan.channel_dropout, self._source(index))
        step = self.learner.step(crops)
        self.pairs = step.pairs
        if not torch.isfinite(step.loss):
            said = f"step {self.global_step}: the loss is {step.loss.item()} on {self._named(crops.volume)}"
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

    def on_train_batch_start(self, batch: Crops, index: int) -> None:
        """Holds the encoder still, its norms' running moments as well, for as long as the plan says."""
        frozen = not self.body or self.global_step < self.plan.frozen
        for weight in self.body:
            weight.requires_grad_(not frozen)
        self.learner.encoder.train(not frozen)

    def _named(self, volumes: Int[Tensor, "n"]) -> str:
        return ", ".join(self.cases[row] if self.cases else f"volume {row}" for row in volumes.tolist())

    def _source(self, index: int) -> torch.Generator:
        """Of the plan's seed and the place in the training alone, so that a resumed one draws the same."""
        return torch.Generator().manual_seed(hash((self.plan.seed, self.current_epoch, index)) % 2**63)

    def configure_optimizers(self) -> dict:
        """The plan's optimiser and schedule; from a plateau on, both go on as they were there."""
        rule, continued = optimizer(self.learner, self.plan), self.before is not None
        if self.before is not None:
            recall(rule, self.learner, self.before)
        schedule = torch.optim.lr_scheduler.LambdaLR(rule, lambda step: share(step, self.plan, continued))
        return {"optimizer": rule, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
