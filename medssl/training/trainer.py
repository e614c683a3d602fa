"""The training loop: trains an objective or a task into a run, resumes it, and writes the final weights."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, WeightAveraging
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor

from medssl.files import exclusive_lock, sweep_parts
from medssl.nn import lora
from medssl.nn.collectives import is_distributed
from medssl.nn.interop import weight_transfer
from medssl.objectives.base import Objective
from medssl.render import report
from medssl.run import PROJECTION_FILE, Run
from medssl.tasks.base import Task
from medssl.training.callbacks.dense_probe import DenseProbeCallback
from medssl.training.callbacks.plateau_checkpoint import PlateauCheckpoint
from medssl.training.callbacks.progress import PreviewWriter, ProgressBar
from medssl.training.callbacks.start_report import StartReport
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders, TrainBatches
from medssl.training.fault_tolerance.checkpoint_files import (
    BEST,
    STEP,
    VerifiedCheckpointIO,
    delete_checkpoint,
    find_intact,
    is_intact,
    list_checkpoints,
)
from medssl.training.fault_tolerance.failures import explain_failures
from medssl.training.fault_tolerance.limits import LimitConfig, StopRequest
from medssl.training.fault_tolerance.run_checkpoints import RunCheckpoints, read_position
from medssl.training.fault_tolerance.watchdog import Watchdog
from medssl.training.lightning_module import LitTraining
from medssl.training.loggers import build_loggers
from medssl.training.optimizers import make_ema_update
from medssl.training.processes.agreement import call_on_main, is_main_process
from medssl.training.processes.sharding import RestoreWeights, ShardedStrategy
from medssl.training.resource_usage import track_resources
from medssl.training.run_records.environment import record_environment

log = logging.getLogger(__name__)


def train(
    learner: Objective | Task,
    loaders: DataLoaders,
    run: Run,
    config: TrainConfig,
    callbacks: Sequence[Callback] = (),
    plateau: Mapping[str, Tensor] | None = None,
    limits: LimitConfig | None = None,
) -> dict[str, float]:
    """Trains a learner, writes its weights and a report into the run, and returns the scores.

    An interrupted run resumes at the step after its last checkpoint, with the weights that it would have had without
    the interruption, bit for bit on a CPU with the same number of threads. A task with validation data keeps the
    weights with the best mean validation score (`Task.selection_metric`); otherwise the last weights are kept.

    Args:
        learner: Objective or task to train.
        loaders: Training and validation data.
        run: Open run to write to.
        config: Length, optimizer, schedule and hardware.
        callbacks: Further Lightning callbacks, for example a `RepresentationMonitor`. For a `DenseProbeCallback` the
            scores of the final weights are added.
        plateau: State from `plateau_checkpoint.read_plateau` that the optimizer continues from.
        limits: When the state is saved and when the training stops early.

    Returns:
        The scores of the last epoch and, with validation, `best_val_...` and `best_epoch`; nothing in a process other
        than the main one, which alone writes files.

    Raises:
        BadInput: Another process trains this run, voxels, loss, gradients or weights are not finite, or memory ran out.
        Stopped: A signal or a limit stopped the training; its state is saved.
    """
    validates = isinstance(learner, Task) and loaders.val is not None
    monitor = f"val_{learner.selection_metric}" if isinstance(learner, Task) and validates else None
    request = StopRequest(limits or LimitConfig())
    checkpoints = RunCheckpoints(run.path, config, request, monitor)
    after_batch = [checkpoints.after_batch]
    if config.schedule == "infinite":
        plateau_checkpoint = PlateauCheckpoint(run, config)
        callbacks, after_batch = [plateau_checkpoint, *callbacks], [plateau_checkpoint.after_batch, *after_batch]
    module = LitTraining(learner, config, loaders.case_ids, plateau, after_batch)
    with _claim(run):
        try:
            with track_resources(run), explain_failures(run.path):
                resumed = _find_checkpoint(run, loaders)
                callbacks = [StartReport(config, loaders), *callbacks, Watchdog(request.config.watchdog_minutes)]
                trainer = _build_trainer(config, run, checkpoints, loaders.val_every_n_epochs, callbacks, resumed)
                with checkpoints.stop_on_signals():
                    _fit(trainer, module, loaders, resumed)
                if not is_main_process():
                    return {}
                scores = _save_weights(trainer, module, run, checkpoints)
                for callback in callbacks:
                    if isinstance(callback, DenseProbeCallback):
                        scores |= callback.probe.score(learner.encoder)
            run.update_metadata(scores=scores, skipped_steps=module.skipped_steps)
        finally:
            if is_main_process():
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


@contextmanager
def _claim(run: Run) -> Iterator[None]:
    """Holds the lock on a run while the block runs, sweeps its leftovers and records the environment."""
    if not is_main_process():
        yield
        return
    with exclusive_lock(run.path, "another process trains this run; wait for its end or choose another `run`"):
        sweep_parts(run.path)
        record_environment(run)
        yield


def _find_checkpoint(run: Run, loaders: DataLoaders) -> Path | None:
    """Returns the checkpoint to resume from, if there is one, and moves the loaders to its place in the data."""
    path = call_on_main(lambda: find_intact(run.path, STEP))
    if path is not None:
        loaders.skip_to(*read_position(path))
    elif is_main_process() and list_checkpoints(run.path, STEP):
        log.warning("%s: no checkpoint is intact; the training begins again", run.path)
    return path


def _build_trainer(
    config: TrainConfig, run: Run, checkpoints: RunCheckpoints, val_every_n_epochs: int,
    extra_callbacks: Sequence[Callback], resumed: Path | None,
) -> Trainer:  # fmt: skip
    silence_lightning()
    seed_everything(config.seed, workers=True, verbose=False)
    callbacks: list[Callback] = [*extra_callbacks, ProgressBar(config), PreviewWriter(run.path / "previews")]
    if config.ema_decay:
        callbacks.append(WeightAveraging(avg_fn=make_ema_update(config.ema_decay)))
    callbacks += [checkpoints, RestoreWeights()]
    return Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=_choose_strategy(config),
        use_distributed_sampler=False,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        gradient_clip_val=config.gradient_clip,
        accumulate_grad_batches=config.accumulate_grad_batches,
        check_val_every_n_epoch=min(val_every_n_epochs, config.epochs),
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=build_loggers(run.path, resumed, config.tracker),
        log_every_n_steps=10,
        default_root_dir=run.path,
        # Named, because Lightning would otherwise requeue SLURM jobs and read states from other folders.
        plugins=[VerifiedCheckpointIO(), TorchElasticEnvironment() if is_distributed() else LightningEnvironment()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _choose_strategy(config: TrainConfig) -> Strategy | str:
    if config.num_processes == 1:
        return "auto"
    if config.strategy == "fsdp":
        return ShardedStrategy()
    # Unused parameters: a frozen encoder, and heads that a batch does not need. Buffers are equal by construction.
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)


def _fit(trainer: Trainer, module: LitTraining, loaders: DataLoaders, checkpoint: Path | None) -> None:
    """Trains, from the checkpoint if there is one."""
    with warnings.catch_warnings():
        # Lightning warns about loader workers and its own internals, which does not concern our users.
        warnings.filterwarnings("ignore", module="lightning|torch", category=UserWarning)
        warnings.filterwarnings("ignore", module="lightning|torch", category=FutureWarning)
        try:
            trainer.fit(module, TrainBatches(loaders.train), loaders.val, ckpt_path=checkpoint)
        except SystemExit:  # raised by Lightning after a second Ctrl-C
            raise KeyboardInterrupt from None


def _save_weights(trainer: Trainer, module: LitTraining, run: Run, checkpoints: RunCheckpoints) -> dict[str, float]:
    """Writes the best weights, or the last ones without validation, and returns their scores."""
    scores = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
    if checkpoints.best_score is not None:
        scores |= _load_best(module, checkpoints)
    parts = module.learner.transferable()
    for part in parts.values():
        lora.merge_adapters(part)
    weight_transfer.save_parts(parts, run.path / "weights.safetensors")
    head = module.learner.projection_head() if isinstance(module.learner, Objective) else None
    if head is not None:
        weight_transfer.save_parts({"projection": head.layers}, run.path / PROJECTION_FILE)
    for path in (*list_checkpoints(run.path, STEP), *list_checkpoints(run.path, BEST)):
        delete_checkpoint(path)
    return scores


def _load_best(module: LitTraining, checkpoints: RunCheckpoints) -> dict[str, float]:
    """Loads the weights with the best validation score into the module, and returns that score and its epoch."""
    if not is_intact(checkpoints.best_path):
        log.warning("%s: is damaged or missing; the weights of the last step are kept instead", checkpoints.best_path)
        return {}
    checkpoint = torch.load(checkpoints.best_path, weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return {
        f"best_{checkpoints.monitor}": float(checkpoints.best_score or 0.0),
        "best_epoch": float(checkpoint["epoch"] + 1),
    }
