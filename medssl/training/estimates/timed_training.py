"""Times a few steps of a training by its settings, from fresh weights, without writing a run."""

import time
from typing import TypeVar

import torch

from medssl.data.manifest import Manifest
from medssl.models.trained_model import TrainedModel
from medssl.training import finetune, pretrain
from medssl.training.estimates.step_cost import StepCost, time_steps
from medssl.training.finetune import FinetuneData
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig
from medssl.training.semi_supervised.label_source import LabelPool, LabelSource

SettingsT = TypeVar("SettingsT", FinetuneConfig, PretrainConfig)


def time_training(settings: FinetuneConfig | PretrainConfig, device: str = "cpu") -> StepCost:
    """Returns the cost of an optimizer step; for a finetuning also that of predicting one window.

    Args:
        settings: The training; nothing is written to its run.
        device: The torch device.
    """
    with torch.random.fork_rng():
        if isinstance(settings, FinetuneConfig):
            return _time_finetuning(settings, device)
        return _time_pretraining(settings, device)


def _time_finetuning(settings: FinetuneConfig, device: str) -> StepCost:
    settings = _load_in_this_process(settings).model_copy(update={"pretrained": None})
    data = FinetuneData.select(settings)
    model = finetune.build_model(settings, data)
    loaders = finetune.make_loaders(settings, data, model, None)
    cost = time_steps(model.task, loaders, settings.train.accumulate_grad_batches, device)
    x = torch.zeros(1, model.spec.in_channels, *settings.patch_size, device=device)
    begin = time.perf_counter()
    with torch.inference_mode():
        model.task.eval().to(device).probability(x)
    return cost._replace(window_s=time.perf_counter() - begin)


def _time_pretraining(settings: PretrainConfig, device: str) -> StepCost:
    """Times a pretraining without labels, which cost little in a step."""
    changes = {"start_from": None, "continue_from": None, "labels": LabelSource()}
    settings = _load_in_this_process(settings).model_copy(update=changes)
    cases = Manifest.read(settings.manifest).in_split(settings.split)
    spec = TrainedModel.for_manifest(cases, settings.encoder, settings.patch_size)
    objective, _, _ = pretrain.build_objective(settings, spec)
    loaders = pretrain.make_loaders(settings, objective, LabelPool(cases, None, spec.normalization))
    return time_steps(objective, loaders, settings.train.accumulate_grad_batches, device)


def _load_in_this_process(settings: SettingsT) -> SettingsT:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"num_workers": 0})})
