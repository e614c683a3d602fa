"""Keeps the weights that a finetuning started from, if the finetuning made them worse on the validation cases."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.models.trained_model import default_device
from medssl.nn.interop import weight_transfer
from medssl.nn.interop.weight_transfer import TransferReport
from medssl.render import report
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.training.data_loaders import DataLoaders, is_own_volume
from medssl.training.processes.agreement import gather_values

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartWeights:
    """The weights of a whole network that a finetuning starts from, and their scores on the validation cases.

    Attributes:
        tensors: The weights by key.
        scores: Mean of each score of `Task.validate` over the validation cases.
    """

    tensors: Mapping[str, Tensor]
    scores: Mapping[str, float]

    def keep_if_better(self, run: Run, scores: Mapping[str, float], metric: str) -> None:
        """Records the scores of the start, and writes its weights if no later ones have a better score.

        Args:
            run: The open run, with the weights of the training.
            scores: The scores of the training.
            metric: Name of the score that selects the weights.
        """
        start, best = self.scores[metric], scores.get(f"best_val_{metric}", -1.0)
        recorded = {f"start_val_{name}": value for name, value in self.scores.items()}
        run.update_metadata(scores={**scores, **recorded})
        if start > best:
            weight_transfer.write_tensors(self.tensors, run.path / "weights.safetensors")
            message = (
                f"the training made the network worse on the validation cases: {metric} {start:.3f} before and"
                f" {best:.3f} at best after it; the weights of the start are kept"
            )
            log.warning("%s: %s", run.path, message)
            run.update_metadata(alarm="; it ".join([*filter(None, [run.metadata.get("alarm")]), message]))
        report.write(run)


def score_start(
    task: Task, transfer: TransferReport | None, pretrained: Run | None, loaders: DataLoaders, accelerator: str
) -> StartWeights | None:
    """Measures the weights that a finetuning starts from; None unless they are a whole network for its classes.

    Args:
        task: The network before training.
        transfer: What happened to every pretrained tensor; None without a pretraining.
        pretrained: The run that the weights come from.
        loaders: The data of the training.
        accelerator: auto, cpu or gpu.
    """
    if pretrained is None or transfer is None or loaders.val is None:
        return None
    keys = {f"{part}.{key}" for part, module in task.transferable().items() for key in module.state_dict()}
    if keys != {entry.key for entry in transfer.entries if entry.status == "loaded"}:
        return None
    device = "cpu" if accelerator == "cpu" else default_device()
    task.eval().to(device)
    with torch.inference_mode():
        volumes = (crops for crops in loaders.val if is_own_volume(crops))
        scored = [{name: float(score) for name, score in task.validate(crops.to(device)).items()} for crops in volumes]
    task.train().to("cpu")
    rows = [row for share in gather_values(scored) for row in share]
    scores = {name: sum(row[name] for row in rows if name in row) / len(rows) for name in rows[0]}
    return StartWeights(weight_transfer.read_tensors(pretrained.weights), scores)
