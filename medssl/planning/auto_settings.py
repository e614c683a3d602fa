"""Fills the keys that a config leaves as `auto` with what suits the store."""

from pathlib import Path
from typing import Any

from medssl.data.manifest import Manifest
from medssl.planning.choose_settings import Budget, plan_training
from medssl.planning.dataset_fingerprint import DatasetFingerprint
from medssl.planning.training_plan import Purpose

AUTO = "auto"
MEMORY_GB = 6.0  # that the batch size of `auto` may use
PLANNED_KEYS = {
    "objective", "patch_size", "encoder", "encoder.channels", "encoder.strides", "encoder.kernels", "augment.flip",
    "train.batch_size", "train.epochs", "train.steps_per_epoch", "train.lr",
}  # fmt: skip


def fill_auto(values: dict[str, Any], purpose: Purpose) -> dict[str, Any]:
    """Returns settings in which the planner's value replaces each `auto` of PLANNED_KEYS; all others are left alone.

    The size of the network and of its crops is that of the defaults, shaped by the grid of the store, so that the same
    config gives the same values on every machine; `medssl plan` fits them to a time and a memory instead.

    Args:
        values: Unvalidated settings with the path of the manifest; groups are dictionaries.
        purpose: The command that the settings are for.

    Raises:
        ValueError: There is no manifest to plan for.
    """
    keys = _find_auto(values)
    if not keys:
        return values
    if not values.get("manifest"):
        raise ValueError(f"{', '.join(keys)}: auto depends on the store; give manifest=STORE/manifest.csv")
    fingerprint = DatasetFingerprint.measure(Manifest.read(Path(values["manifest"])))
    planned = plan_training(fingerprint, purpose, Budget(None, MEMORY_GB, 1.0)).settings()
    return _fill(values, planned, "")


def _find_auto(values: dict[str, Any], parents: str = "") -> list[str]:
    """Returns the dotted keys that a plan has to fill."""
    keys = list[str]()
    for name, value in values.items():
        if value == AUTO and parents + name in PLANNED_KEYS:
            keys.append(parents + name)
        elif isinstance(value, dict):
            keys += _find_auto(value, f"{parents}{name}.")
    return keys


def _fill(values: dict[str, Any], planned: dict[str, Any], parents: str) -> dict[str, Any]:
    filled = dict(values)
    for name, value in values.items():
        key = parents + name
        if value == AUTO and key in PLANNED_KEYS:
            filled[name] = planned[name]
        elif isinstance(value, dict) and name in planned:
            filled[name] = _fill(value, planned[name], f"{key}.")
    return filled
