"""Finetuning: trains a network for segmentation, detection or classification from few labelled volumes."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from medssl.data.checks import leakage
from medssl.data.checks.leakage import CaseTrace
from medssl.data.manifest import Manifest
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.pending_crops import augment_crops
from medssl.data.registration.atlas import Atlas
from medssl.data.selection.splits import assign_fold
from medssl.models.provenance import list_weight_licences
from medssl.models.trained_model import TrainedModel, list_units
from medssl.nn import lora
from medssl.nn.interop.weight_transfer import TransferReport
from medssl.planning.settings_check import check_training
from medssl.run import Run
from medssl.tasks import segment
from medssl.tasks.base import Task
from medssl.training import presets
from medssl.training.data_loaders import DataLoaders, train_loader, volume_loader
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.label_subset import LabelSubset
from medssl.training.processes.agreement import call_on_main, is_main_process
from medssl.training.processes.launch import run_in_processes
from medssl.training.run_records.missing_classes import warn_about_missing_classes
from medssl.training.run_records.plateau import warn_about_unfinished
from medssl.training.run_records.start_weights import score_start
from medssl.training.semi_supervised import methods
from medssl.training.semi_supervised.config import SemiSupervisedConfig
from medssl.training.semi_supervised.method_choice import MethodChoice, choose_method, folds_folder
from medssl.training.semi_supervised.methods import ExtraVolumes
from medssl.training.trainer import train

log = logging.getLogger(__name__)


def finetune(config: FinetuneConfig) -> Run:
    """Trains a network for a task and returns the closed run, which `medssl predict` takes.

    Labels of split train are learnt, labels of split val select the weights. Split test is not used, except to refuse
    a training that has seen its cases. With `train.devices` of more than 1, processes are started for it.
    """
    return run_in_processes(_finetune, config, config.train)


def _finetune(config: FinetuneConfig) -> Run:
    """Trains in one process of the training."""
    data = FinetuneData.select(config)
    config = config.with_presets(len(data.subset.labelled.cases))
    model = build_model(config, data)
    traces = check_leakage(config, data)
    check_training(config.patch_size, data.subset.labelled, config.train.total_steps * config.train.batch_size)
    begin = partial(Run.begin, config.run, config, "finetune", config.resume, **_describe(data, model))
    if call_on_main(lambda: Run(config.run).is_finished):
        return call_on_main(begin)
    choice = _choose_method(config, data) if config.semi_supervised.method == "auto" else None
    semi_supervised = choice.method if choice else config.semi_supervised
    method = methods.prepare(semi_supervised, data.subset, model.task, config.train)
    run = call_on_main(begin)
    if choice:
        call_on_main(lambda: run.update_metadata(method_choice=choice.to_json()))
    extra = call_on_main(lambda: method.extra_volumes(run))
    loaders = make_loaders(config, data, model, extra)
    call_on_main(lambda: leakage.write_traces(run.path, [*traces, *data.trace_cases(extra)]))
    start = score_start(model.task, model.transfer, model.pretrained, loaders, config.train.accelerator)
    scores = train(method.learner, loaders, run, method.train_config, limits=config.limits)
    if is_main_process():
        if start:
            start.keep_if_better(run, scores, method.learner.selection_metric)
        warn_about_missing_classes(method.learner, map(augment_crops, loaders.train), run, data.subset.classes)
        warn_about_unfinished(run, scores, method.learner.selection_metric if loaders.val is not None else "")
        run.close()
    return run


@dataclass(frozen=True)
class FinetuneData:
    """The cases of a finetuning.

    Attributes:
        manifest: All cases of the store, with the splits of the chosen fold.
        subset: Cases to train on.
        val: Labelled cases to select the weights on.
        held_out: Cases that later predictions are tested on; neither training nor pretraining may have seen them.
    """

    manifest: Manifest
    subset: LabelSubset
    val: Manifest
    held_out: Manifest

    @classmethod
    def select(cls, config: FinetuneConfig) -> "FinetuneData":
        """Selects the cases; raises BadInput if labels are missing, undeclared, or lack a class."""
        manifest = Manifest.read(config.manifest)
        if config.num_folds:
            manifest = assign_fold(manifest, config.fold, config.num_folds, config.seed)
        subset = LabelSubset.select(manifest, config.num_labelled, config.seed, config.classes, config.label_domain)
        subset.check_classes(config.allow_missing_classes)
        segment.check_regions(config.task, subset.classes)
        val = manifest.in_split("val").with_labels().head(config.max_val_cases)
        # The runs of a cross-validation are tested on the cases that each of them holds out.
        splits = ("test", "val") if config.num_folds else ("test",)
        held_out = replace(manifest, cases=tuple(case for case in manifest.cases if case.split in splits))
        return cls(manifest, subset, val, held_out)

    def train_manifests(self, extra: ExtraVolumes | None) -> Sequence[Manifest]:
        """Returns the labelled volumes and the extra volumes, in the order of `Crops.volume`."""
        return [self.subset.labelled, *([extra.manifest] if extra else [])]

    def trace_cases(self, extra: ExtraVolumes | None) -> list[CaseTrace]:
        """Returns the traces of all cases that are trained on."""
        return [trace for manifest in self.train_manifests(extra) for trace in leakage.trace_cases(manifest)]


@dataclass(frozen=True)
class FinetuneModel:
    """The network of a finetuning, before training.

    Attributes:
        task: The network with pretrained or fresh weights.
        spec: What is needed to build the network again and to prepare its input.
        pretrained: Run that the weights come from.
        transfer: What happened to every pretrained tensor.
    """

    task: Task
    spec: TrainedModel
    pretrained: Run | None
    transfer: TransferReport | None


def build_model(config: FinetuneConfig, data: FinetuneData) -> FinetuneModel:
    """Builds the network, with pretrained weights and adapters if configured."""
    classes = data.subset.classes
    spec = TrainedModel.for_manifest(data.subset.labelled, config.encoder, config.patch_size)
    # Units of all cases that may be selected, so that they do not depend on the selection.
    units = list_units(data.manifest.in_split("train").with_labels())
    spec = spec.model_copy(update={"task": config.task, "labels": dict(classes.names), "units": units})
    torch.manual_seed(config.train.seed)
    pretrained = Run.open(config.pretrained) if config.pretrained else None
    if pretrained:
        spec = spec if config.allow_normalization_mismatch else spec.adopt_normalization(pretrained, config.channels)
        task, transfer = spec.warm_start(
            pretrained, config.allow_normalization_mismatch, config.channels, config.rescale_kernel_norms
        )
    else:
        task, transfer = spec.build_task(), None
    log.info("%s", transfer or "no pretrained weights: training from scratch")
    if config.schedule == "lora":
        lora.add_adapters(task.encoder, config.lora_rank)
    return FinetuneModel(task, spec, pretrained, transfer)


def check_leakage(config: FinetuneConfig, data: FinetuneData) -> list[CaseTrace]:
    """Raises BadInput if training, pretraining or atlas contain held-out cases, unless `allow_overlap` is set.

    Returns:
        The traces of the cases that the pretraining and the atlas have seen.
    """
    if not config.allow_overlap:
        data.subset.require_disjoint_patients(data.manifest.in_split("test"))
    held_out = None if config.allow_overlap else data.held_out
    traces = leakage.read_seen_cases(config.pretrained, held_out)
    if config.semi_supervised.atlas:
        atlas = Atlas(config.semi_supervised.atlas)
        traces += leakage.check_overlap(leakage.trace_cases(atlas.manifest), atlas.folder, held_out)
    return traces


def make_loaders(
    config: FinetuneConfig, data: FinetuneData, model: FinetuneModel, extra: ExtraVolumes | None
) -> DataLoaders:
    """Returns crops of the labelled and the extra volumes to train on, and whole volumes to validate on."""
    classes, normalization = data.subset.classes, model.spec.normalization
    make_dataset = partial(
        CropDataset, normalization=normalization, patch_size=config.patch_size, seed=config.train.seed,
        augment_config=presets.add_flip_pairs(config.augment, classes),
    )  # fmt: skip
    make_labelled = partial(
        make_dataset, labelled=True, foreground_fraction=config.foreground_fraction,
        by_component=model.task.by_component, num_label_slices=config.num_label_slices,
    )  # fmt: skip
    labelled = make_labelled(data.subset.labelled, classes=classes)
    extra_dataset = None
    if extra and extra.classes:
        extra_dataset = make_labelled(extra.manifest, classes=extra.classes)
    elif extra:
        extra_dataset = make_dataset(extra.manifest)
    return DataLoaders(
        train=train_loader(labelled, config.train, extra_dataset),
        val=volume_loader(data.val, normalization, classes) if data.val.cases else None,
        val_every_n_epochs=config.val_every_n_epochs,
        case_ids=[case.id for manifest in data.train_manifests(extra) for case in manifest.cases],
    )


def _choose_method(config: FinetuneConfig, data: FinetuneData) -> MethodChoice:
    """Cross-validates the methods of `semi_supervised=auto` in the folder RUN-auto, by trainings of full length."""

    def train_fold(manifest: Path, semi_supervised: SemiSupervisedConfig, run: Path) -> float:
        changes = {
            "run": run, "manifest": manifest, "semi_supervised": semi_supervised, "num_labelled": None,
            "num_folds": None, "max_val_cases": 8, "val_every_n_epochs": config.train.epochs, "resume": True,
            "allow_missing_classes": True, "allow_overlap": True,
        }  # fmt: skip
        if not call_on_main(lambda: Run(run).is_finished):
            _finetune(config.model_copy(update=changes))
        return call_on_main(lambda: float(Run(run).metadata["scores"]["val_dice"]))

    return choose_method(config.semi_supervised, data.subset, train_fold, folds_folder(config.run))


def _describe(data: FinetuneData, model: FinetuneModel) -> dict[str, Any]:
    """Returns the metadata of the run, which must be the same when the run is resumed."""
    pretrained = model.pretrained.metadata if model.pretrained else None
    return {
        "normalization_of_weights": pretrained and pretrained["network"]["normalization"],
        "start": pretrained and pretrained["kind"],
        "start_sha256": pretrained and pretrained["weights_sha256"],
        "start_licences": list_weight_licences(model.pretrained),
        "manifest": data.subset.labelled.digest(),
        "network": model.spec.model_dump(mode="json"),
        "cases": [case.id for case in data.subset.labelled.cases],
        "transfer": model.transfer.to_json() if model.transfer else None,
    }
