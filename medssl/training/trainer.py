"""The training loop: trains an objective or a task into a run, resumes it, and writes the final weights."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from medssl.files import atomic_file, exclusive_lock
from medssl.nn import lora
from medssl.nn.interop import weight_transfer
from medssl.objectives.base import Objective
from medssl.render import report
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.training.callbacks.dense_probe import DenseProbeCallback
from medssl.training.callbacks.plateau_checkpoint import PlateauCheckpoint
from medssl.training.callbacks.progress import PreviewWriter, ProgressBar
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders
from medssl.training.lightning_module import LitTraining
from medssl.training.loggers import build_loggers
from medssl.training.optimizers import make_ema_update
from medssl.training.resource_usage import track_resources

LAST = "last.ckpt"
BEST = "best.ckpt"


def train(
    learner: Objective | Task,
    loaders: DataLoaders,
    run: Run,
    config: TrainConfig,
    callbacks: Sequence[Callback] = (),
    plateau: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Trains a learner, writes its weights and a report into the run, and returns the scores.

    An interrupted run resumes from its last finished epoch. A task with validation data keeps the weights with the best
    mean validation score (`Task.selection_metric`); otherwise the last weights are kept.

    Args:
        learner: Objective or task to train.
        loaders: Training and validation data.
        run: Open run to write to.
        config: Length, optimizer, schedule and hardware.
        callbacks: Further Lightning callbacks, for example a `RepresentationMonitor`. For a `DenseProbeCallback` the
            scores of the final weights are added.
        plateau: State from `plateau_checkpoint.read_plateau` that the optimizer continues from.

    Returns:
        The scores of the last epoch and, with validation, `best_val_...` and `best_epoch`.

    Raises:
        BadInput: Another process trains this run, or voxels or the loss are not finite.
    """
    module = LitTraining(learner, config, loaders.case_ids, plateau)
    if config.schedule == "infinite":
        callbacks = [PlateauCheckpoint(run, config), *callbacks]
    validates = isinstance(learner, Task) and loaders.val is not None
    monitor = f"val_{learner.selection_metric}" if isinstance(learner, Task) and validates else None
    with exclusive_lock(run.path, "another process trains this run; wait for its end or choose another `run`"):
        try:
            with track_resources(run):
                trainer = _build_trainer(config, run, monitor, loaders.val_every_n_epochs, callbacks)
                _fit(trainer, module, loaders, run.path / LAST)
                scores = _save_weights(trainer, module, run)
                for callback in callbacks:
                    if isinstance(callback, DenseProbeCallback):
                        scores |= callback.probe.score(learner.encoder)
            run.update_metadata(scores=scores)
        finally:
            report.write(run)
    return scores


def format_scores(scores: Mapping[str, float]) -> str:
    """Formats scores as one line, with the best validation scores first."""
    order = sorted(scores, key=lambda name: (not name.startswith("best"), name))
    return ", ".join(f"{name} {scores[name]:.4g}" for name in order)


def silence_lightning() -> None:
    """Hides Lightning's own messages below errors."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints that are complete or absent, even if the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a temporary file and renames it."""
        with atomic_file(Path(path)) as part:
            torch.save(checkpoint, part)


def _build_trainer(
    config: TrainConfig, run: Run, monitor: str | None, val_every_n_epochs: int, extra_callbacks: Sequence[Callback]
) -> Trainer:
    silence_lightning()
    seed_everything(config.seed, workers=True, verbose=False)
    folder = str(run.path)
    callbacks: list[Callback] = [*extra_callbacks, ProgressBar(config), PreviewWriter(run.path / "previews")]
    if config.ema_decay:
        callbacks.append(WeightAveraging(avg_fn=make_ema_update(config.ema_decay)))
    if monitor:
        best = ModelCheckpoint(
            folder, filename=Path(BEST).stem, monitor=monitor, mode="max", enable_version_counter=False,
        )  # fmt: skip
        callbacks.append(best)
    # After the best checkpoint, so that a resumed run knows the score to beat.
    callbacks.append(
        ModelCheckpoint(folder, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True)
    )
    return Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=1,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        gradient_clip_val=config.gradient_clip,
        accumulate_grad_batches=config.accumulate_grad_batches,
        check_val_every_n_epoch=min(val_every_n_epochs, config.epochs),
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=build_loggers(run.path, run.path / LAST),
        log_every_n_steps=10,
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _fit(trainer: Trainer, module: LitTraining, loaders: DataLoaders, checkpoint: Path) -> None:
    """Trains, from the checkpoint if it exists."""
    ckpt_path = str(checkpoint) if checkpoint.is_file() else None
    with warnings.catch_warnings():
        # Lightning warns about loader workers and its own internals, which does not concern our users.
        warnings.filterwarnings("ignore", module="lightning|torch", category=UserWarning)
        warnings.filterwarnings("ignore", module="lightning|torch", category=FutureWarning)
        try:
            trainer.fit(module, loaders.train, loaders.val, ckpt_path=ckpt_path)
        except SystemExit:  # raised by Lightning after Ctrl-C and when a scheduler ends the job
            raise KeyboardInterrupt from None


def _save_weights(trainer: Trainer, module: LitTraining, run: Run) -> dict[str, float]:
    """Writes the best weights, or the last ones without validation, and returns their scores."""
    scores = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
    if (run.path / BEST).is_file():
        best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
        scores |= _load_best(module, best, run.path / BEST)
    parts = module.learner.transferable()
    for part in parts.values():
        lora.merge_adapters(part)
    weight_transfer.save_parts(parts, run.path / "weights.safetensors")
    (run.path / LAST).unlink(missing_ok=True)
    return scores


def _load_best(module: LitTraining, best: ModelCheckpoint, path: Path) -> dict[str, float]:
    """Loads the best checkpoint into the module, deletes it, and returns its score and epoch."""
    checkpoint = torch.load(path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    path.unlink()
    return {f"best_{best.monitor}": float(best.best_model_score or 0.0), "best_epoch": float(checkpoint["epoch"] + 1)}
