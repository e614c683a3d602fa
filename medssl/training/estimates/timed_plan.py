"""Plans a training for this machine: a plan by estimates, corrected by timed steps of what it chose."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveFloat

from medssl import config
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.models.trained_model import default_device
from medssl.planning.choose_settings import Budget, correct_budget, fit_steps, plan_training
from medssl.planning.dataset_fingerprint import DatasetFingerprint
from medssl.planning.network_cost import measure_speed
from medssl.planning.training_plan import Choice, ConfigPlan, Purpose
from medssl.settings import Settings
from medssl.training.estimates.step_cost import StepCost, format_duration
from medssl.training.estimates.timed_training import time_training
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig

MAX_ROUNDS = 2  # plans of which steps are timed
TOLERANCE = 1.4  # of measured time and memory, relative to the estimates, within which a plan stays
SCHEMAS: dict[Purpose, type[FinetuneConfig] | type[PretrainConfig]] = {
    "finetune": FinetuneConfig,
    "pretrain": PretrainConfig,
}


class PlanRequest(Settings):
    """What a training is planned for."""

    purpose: Purpose = Field("finetune", description="command to plan")
    hours: PositiveFloat = Field(2.0, description="hours that the training may take")
    memory_gb: PositiveFloat = Field(6.0, description="memory that it may use, in GB")
    device: str = Field("", description="cpu or cuda; empty is cuda if there is a GPU")


def plan(manifest: Manifest, source: Path, request: PlanRequest, watch: Callable[[str], None]) -> ConfigPlan:
    """Returns the plan of a training, of which a few steps were timed on this machine.

    Args:
        manifest: The cases of a store.
        source: Path of the manifest, which the plan names.
        request: Purpose, time, memory and device.
        watch: Receives progress messages.

    Raises:
        BadInput: The store cannot be trained on, or there is no such device.
    """
    device = request.device or default_device()
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: torch sees no GPU here; plan on the machine that trains, or give --device cpu")
    fingerprint = DatasetFingerprint.measure(manifest)
    if request.purpose == "finetune" and not fingerprint.num_labelled:
        raise BadInput(
            f"{source}: split 'train' has no labelled volume to finetune on; ingest labels, or give --for pretrain"
        )
    budget = Budget(request.hours, request.memory_gb, measure_speed(device))
    for _ in range(MAX_ROUNDS):
        result = plan_training(fingerprint, request.purpose, budget)
        size = f"{result.cost.parameters / 1e6:.1f} M parameters, crops of {result.settings()['patch_size']}"
        watch(f"timing a few steps: {size}")
        cost = time_training(_check(result, source, device), device)
        corrected = correct_budget(budget, result, cost.wall_s, cost.memory_gb)
        speeds = sorted((budget.flops_per_s, corrected.flops_per_s))
        is_close = max(speeds[1] / speeds[0], corrected.memory_scale / budget.memory_scale) <= TOLERANCE
        budget = corrected
        if is_close:
            break
    return _fit_steps(result, fingerprint, request, cost, source, device)


def _fit_steps(
    result: ConfigPlan,
    fingerprint: DatasetFingerprint,
    request: PlanRequest,
    cost: StepCost,
    source: Path,
    device: str,
) -> ConfigPlan:
    """Returns the plan with as many steps as the timed ones allow, and with what it takes."""
    length = fit_steps(result, request.hours, cost.wall_s)
    seconds = length.steps * cost.wall_s
    measured = (
        f"timed on this machine's {'GPU' if device == 'cuda' else 'CPU'}: {cost.wall_s:.3g} s a step and"
        f" {cost.memory_gb:.1f} GB; about {format_duration(seconds)} for {length.steps} steps"
    )
    if cost.memory_gb > request.memory_gb:
        measured += f", more than the {request.memory_gb:g} GB of the budget, and nothing smaller is planned"
    choices = [Choice("manifest", str(source), "the store that this is planned for"), *length.choices]
    if device == "cpu" and torch.cuda.is_available():
        choices.append(Choice("train.accelerator", "cpu", "as planned, though there is a GPU"))
    return replace(length, header=(*result.header, measured), choices=tuple(choices))


def _check(result: ConfigPlan, source: Path, device: str) -> FinetuneConfig | PretrainConfig:
    """Returns the settings of the plan as the command reads them."""
    values: dict[str, Any] = {"manifest": str(source), "run": "planned", **result.settings()}
    return config.check(values, SCHEMAS[result.purpose], "medssl plan")
