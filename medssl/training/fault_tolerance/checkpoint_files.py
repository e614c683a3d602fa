"""Checkpoint files of a run: finite, each with a checksum file; a damaged one is passed over for the one before."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from medssl.errors import BadInput
from medssl.files import atomic_file, sha256, write_text

log = logging.getLogger(__name__)
STEP, BEST = "step", "best"  # the beginnings of the names
NUM_KEPT = 2  # checkpoints of each kind
WEIGHTS = ("state_dict", "current_model_state", "optimizer_states")  # entries of a checkpoint that must be finite
BEST_ENTRIES = ("state_dict", "epoch", "global_step")


class VerifiedCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints through `write_checkpoint`, and of the best one only what is needed of it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint with a checksum file."""
        if Path(path).name.startswith(BEST):
            checkpoint = {name: checkpoint[name] for name in BEST_ENTRIES}
        write_checkpoint(checkpoint, Path(path))


def checkpoint_path(folder: Path, kind: str, step: int) -> Path:
    """Returns the path of the checkpoint of a kind after a number of optimizer steps."""
    return folder / f"{kind}-{step:08d}.ckpt"


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint atomically, then its checksum, and then deletes all but the two newest of its kind.

    Raises:
        BadInput: Weights or optimizer state are not finite; nothing is written or deleted.
    """
    names = [name for entry in WEIGHTS for name in _find_non_finite(checkpoint.get(entry), entry)]
    if names:
        raise BadInput(
            f"{path.parent}: after step {checkpoint['global_step']} {names[0]} holds NaN or infinity"
            f" ({len(names)} such tensors), so no checkpoint is written; start another run with a lower train.lr"
        )
    with atomic_file(path) as part:
        torch.save(checkpoint, part)
        digest = sha256(part)
    write_text(_checksum_path(path), f"{digest}  {path.name}\n")
    for old in list_checkpoints(path.parent, path.name.partition("-")[0])[NUM_KEPT:]:
        delete_checkpoint(old)


def find_intact(folder: Path, kind: str) -> Path | None:
    """Returns the newest checkpoint of a kind that matches its checksum; logs a line for each newer, damaged one."""
    for path in list_checkpoints(folder, kind):
        if is_intact(path):
            return path
        log.warning("%s: is damaged (its checksum differs); going back to the checkpoint before it", path)
    return None


def is_intact(path: Path) -> bool:
    """Whether a checkpoint exists and matches its checksum file."""
    try:
        return _checksum_path(path).read_text().split() == [sha256(path), path.name]
    except (OSError, UnicodeDecodeError):
        return False


def list_checkpoints(folder: Path, kind: str) -> list[Path]:
    """Returns the checkpoints of a kind, the newest first."""
    return sorted(folder.glob(f"{kind}-*.ckpt"), reverse=True)


def delete_checkpoint(path: Path) -> None:
    """Deletes a checkpoint and its checksum, if they exist."""
    path.unlink(missing_ok=True)
    _checksum_path(path).unlink(missing_ok=True)


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _find_non_finite(value: Any, name: str) -> Iterator[str]:
    """Yields the names of the floating-point tensors in nested dictionaries and lists that are not finite."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            yield name
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _find_non_finite(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _find_non_finite(item, f"{name}.{number}")
