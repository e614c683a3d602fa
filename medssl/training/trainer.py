"""Trains a learner into a run: resumable, watched, and ended with the weights that are kept."""

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
from torch.utils.data import DataLoader

from medssl.data.crops import Crops
from medssl.files import alone, atomic
from medssl.nn import lora
from medssl.nn.interop import weight_transfer as transfer
from medssl.objectives.base import Objective
from medssl.render import report
from medssl.run import Run
from medssl.tasks.base import Task
from medssl.training.callbacks.dense_probe import Halfway, Probe
from medssl.training.callbacks.plateau_checkpoint import Plateau
from medssl.training.callbacks.progress import Previews, Progress
from medssl.training.callbacks.representation_monitor import Monitors
from medssl.training.config import Plan
from medssl.training.lightning_module import Training
from medssl.training.loggers import loggers
from medssl.training.optimizers import averaging
from medssl.training.resource_usage import spending

LAST = "last.ckpt"
BEST = "best.ckpt"


def fit(
    learner: Objective | Task,
    plan: Plan,
    run: Run,
    train: "DataLoader[Crops]",
    validation: "DataLoader[Crops] | None" = None,
    every: int = 5,
    cases: Sequence[str] = (),
    probe: Probe | None = None,
    before: Mapping[str, Tensor] | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, float]:
    """Trains, writes weights and a report into the run and gives the last (or best validated) scores.

    A run that was interrupted goes on from its last finished epoch. With a validation loader the weights kept
    are those of the best mean of what the task `selects` by, looked at every `every` epochs; without, the last ones.
    `cases` names the volumes, so that a loss that is not finite can say where it came from. A `probe` scores the
    features. `before` is the plateau that the learner was restored from, `known` what
    is known of each volume for nothing.
    """
    module = Training(learner, plan, cases, before)
    watching: list[Callback] = [Plateau(run, plan)] if plan.schedule == "infinite" else []
    watching += [Monitors(run, known)] if isinstance(learner, Objective) else []
    watching += [Halfway(probe)] if probe else []
    monitor = f"val_{learner.selects}" if isinstance(learner, Task) and validation is not None else None
    with alone(run.path, "another process trains this run; wait for its end or choose another `run`"):
        try:
            with spending(run):
                trainer = _trainer(plan, run, monitor, every, watching)
                _go(trainer, module, train, validation, run.path / LAST)
                scores = _kept(trainer, module, run)
                if probe is not None:
                    scores |= probe.scores(learner.encoder)
            run.note(scores=scores)
        finally:
            report.write(run)
    return scores


def told(scores: Mapping[str, float]) -> str:
    """Scores for a person: the kept ones first."""
    order = sorted(scores, key=lambda name: (not name.startswith("best"), name))
    return ", ".join(f"{name} {scores[name]:.4g}" for name in order)


def quiet() -> None:
    """Lightning's and torch's own chatter off; ours stays."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are whole or absent, whatever kills the writer."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes beside, syncs, renames."""
        with atomic(Path(path)) as part:
            torch.save(checkpoint, part)


def _trainer(plan: Plan, run: Run, monitor: str | None, every: int, watching: list[Callback]) -> Trainer:
    quiet()
    seed_everything(plan.seed, workers=True, verbose=False)
    folder = str(run.path)
    callbacks: list[Callback] = [*watching, Progress(plan), Previews(run.path / "previews")]
    if plan.ema:
        callbacks.append(WeightAveraging(avg_fn=averaging(plan.ema)))
    if monitor:
        best = ModelCheckpoint(
            folder, filename=Path(BEST).stem, monitor=monitor, mode="max", enable_version_counter=False,
        )  # fmt: skip
        callbacks.append(best)
    # After the best, so that a run that goes on from here knows what it has to beat.
    callbacks.append(
        ModelCheckpoint(folder, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True)
    )
    return Trainer(
        max_epochs=plan.epochs,
        accelerator=plan.accelerator,
        devices=1,
        precision="bf16-mixed" if plan.precision == "bf16" else "32-true",
        gradient_clip_val=plan.clip,
        accumulate_grad_batches=plan.accumulate,
        check_val_every_n_epoch=min(every, plan.epochs),
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=loggers(run.path, run.path / LAST),
        log_every_n_steps=10,
        plugins=[AtomicCheckpoints()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _go(trainer: Trainer, module: Training, train: DataLoader, validation: DataLoader | None, last: Path) -> None:
    with warnings.catch_warnings():
        # Lightning advises on loader workers and on its own internals: advice for its developers, not for our users.
        warnings.filterwarnings("ignore", module="lightning|torch", category=UserWarning)
        warnings.filterwarnings("ignore", module="lightning|torch", category=FutureWarning)
        try:
            trainer.fit(module, train, validation, ckpt_path=str(last) if last.is_file() else None)
        except SystemExit:  # Lightning's answer to Ctrl-C and to a scheduler that ends the job
            raise KeyboardInterrupt from None


def _kept(trainer: Trainer, module: Training, run: Run) -> dict[str, float]:
    """Writes the weights that are kept, and gives what they scored."""
    scores = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
    if (run.path / BEST).is_file():
        best = next(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor)
        scores |= _take_best(module, best, run.path / BEST)
    parts = module.learner.transferable()
    for part in parts.values():
        lora.merge(part)
    transfer.save(parts, run.path / "weights.safetensors")
    (run.path / LAST).unlink(missing_ok=True)
    return scores


def _take_best(module: Training, best: ModelCheckpoint, path: Path) -> dict[str, float]:
    kept = torch.load(path, weights_only=True)
    module.load_state_dict(kept["state_dict"])
    path.unlink()
    return {f"best_{best.monitor}": float(best.best_model_score or 0.0), "best_epoch": float(kept["epoch"] + 1)}
