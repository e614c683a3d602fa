"""Pretraining: trains an encoder by self-supervision on unlabelled volumes."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from pydantic import Field, model_validator
from torch import Tensor

from medssl.config import PatchSize, class_for_config, module_choice
from medssl.data.checks import leakage
from medssl.data.manifest import Manifest
from medssl.data.pools.case_pool import CasePool, PooledCrops
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.spread_batches import group_batches
from medssl.data.selection.splits import assign_fold
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.errors import BadInput
from medssl.models.provenance import encoder_metadata, list_weight_licences, store_digests
from medssl.models.trained_model import TrainedModel
from medssl.nn.encoder import EncoderChoice, EncoderConfig
from medssl.nn.interop import weight_transfer
from medssl.nn.interop.weight_transfer import TransferReport
from medssl.objectives.base import Objective
from medssl.planning.auto_settings import fill_auto
from medssl.planning.settings_check import check_training
from medssl.run import Run
from medssl.settings import Settings
from medssl.training.callbacks import plateau_checkpoint
from medssl.training.callbacks.dense_probe import DenseProbe, DenseProbeCallback
from medssl.training.callbacks.representation_monitor import RepresentationMonitor
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders, train_loader
from medssl.training.fault_tolerance.limits import LimitConfig
from medssl.training.processes.agreement import call_on_main, is_main_process
from medssl.training.processes.launch import run_in_processes
from medssl.training.run_records.plateau import warn_about_unfinished
from medssl.training.semi_supervised.label_source import LabelPool, LabelSource, plan_labels
from medssl.training.trainer import train

METADATA_LABELS = ("site", "modality", "sex")  # columns of a manifest that label a volume without annotation


class PretrainConfig(Settings):
    """Settings of a pretraining."""

    run: Path = Field(description="folder to write the run to")
    manifest: Path = Field(description="manifest.csv of a store")
    pool: tuple[Path, ...] = Field(
        (), description="manifest.csv of further stores with the same normalization, whose volumes are trained on too"
    )
    sampling_temperature: float = Field(
        1.0,
        ge=1,
        description="1 draws all volumes equally often; larger values draw small data sets and sites more often, up to"
        " as often as large ones",
    )
    single_channel: bool = Field(
        False,
        description="train a network of one channel, on one random channel of each volume; for volumes with different"
        " numbers of channels",
    )
    spread_by: str | None = Field(
        None,
        description="property of which the volumes of a batch have as many different values as possible: site, sex,"
        " age, modality, spacing, or TABLE.csv:COLUMN, as clusters.csv:cluster of `medssl retrieve`; null is off",
    )
    objective: module_choice("medssl.objectives") = Field(  # type: ignore[valid-type]
        description="objective and its settings: a module of medssl/objectives, for example objective.name=spark"
    )
    split: str = Field("train", description="split to train on")
    fold: int = Field(
        0, ge=0, description="with num_folds: number of the fold of labelled patients that is left out, from 0"
    )
    num_folds: int | None = Field(
        None,
        ge=2,
        description="number of folds, as in the finetunings that this pretraining is for; null uses the splits",
    )
    seed: int = Field(0, description="seed of the folds and of labelled volumes, as in the finetunings")
    labels: LabelSource = Field(
        LabelSource(), description="labels for an objective that learns from them, which synthetic does"
    )
    encoder: EncoderChoice = Field(EncoderConfig(), description="architecture of the encoder")
    patch_size: PatchSize = Field((64, 64, 64), description="size of the crops in voxels; one number is a cube")
    min_view_overlap: float | None = Field(
        None, description="smallest fraction of the first view's volume that every other view shares; null is free"
    )
    augment: AugmentConfig | None = Field(
        None, description="augmentation of the crops before the objective sees them; null is off"
    )
    start_from: Path | None = Field(None, description="finished run with the encoder weights to start from")
    continue_from: Path | None = Field(
        None, description="finished run with train.schedule=infinite; this training continues from its plateau"
    )
    train: TrainConfig = Field(TrainConfig(), description="length, optimizer, schedule and hardware of the training")
    num_probe_volumes: int = Field(
        0, ge=0, description="number of labelled volumes for a dense probe of the frozen features; 0 is off"
    )
    limits: LimitConfig = Field(LimitConfig(), description="when the training saves its state and when it stops early")
    resume: bool = Field(False, description="continue the run, or start it if there is none; a finished one is kept")

    @model_validator(mode="before")
    @classmethod
    def _fill_auto(cls, values: Any) -> Any:
        return fill_auto(values, "pretrain") if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_start(self) -> "PretrainConfig":
        if self.start_from and self.continue_from:
            raise ValueError("start_from loads an encoder, continue_from a whole training: give one of them")
        if self.continue_from and self.train.schedule != "infinite":
            raise ValueError("continue_from continues from a plateau: also give train.schedule=infinite")
        if self.labels.depends_on_subset and self.split != "train":
            raise ValueError(f"labels.source={self.labels.source} uses labels of split train; leave out split")
        if self.draws_groups and self.labels.source != "none":
            raise ValueError("pool, sampling_temperature and single_channel take no labels; leave out labels")
        if self.spread_by and (self.draws_groups or self.labels.source != "none"):
            raise ValueError(
                "spread_by: orders the volumes of one store without labels; leave out pool, sampling_temperature,"
                " single_channel and labels"
            )
        return self

    @property
    def draws_groups(self) -> bool:
        """Whether volumes are drawn by data set and site, instead of each once in every round."""
        return bool(self.pool) or self.single_channel or self.sampling_temperature > 1


def pretrain(config: PretrainConfig) -> Run:
    """Trains an encoder by self-supervision and returns the closed run, which a finetuning can start from.

    With `train.devices` of more than 1, processes are started for it.
    """
    return run_in_processes(_pretrain, config, config.train)


def _pretrain(config: PretrainConfig) -> Run:
    """Trains in one process of the training."""
    manifest = Manifest.read(config.manifest)
    if config.num_folds:
        manifest = assign_fold(manifest, config.fold, config.num_folds, config.seed)
    cases = manifest.in_split(config.split)
    stores = CasePool.read(cases, config.pool, config.split)
    spec = describe_model(config, stores)
    probe = make_probe(config, manifest, spec) if is_main_process() else None
    labels = plan_labels(config.labels, manifest, cases, spec, config.seed)
    objective, plateau, transfer = build_objective(config, spec, labels.num_classes)
    check_objective(config, objective, spec, cases)
    check_training(config.patch_size, cases, config.train.total_steps * config.train.batch_size)
    start = config.start_from or config.continue_from
    traces = leakage.read_seen_cases(start, None)
    metadata: dict[str, Any] = {"manifest": cases.digest(), "network": spec.model_dump(mode="json")}
    metadata |= encoder_metadata(objective.encoder, config.objective.name, store_digests(manifest.folder))
    metadata |= {"pool": [{"manifest": m.digest()} | store_digests(m.folder) for m in stores.manifests[1:]]}
    metadata |= {"start_licences": list_weight_licences(Run.open(start) if start else None)}
    metadata |= {"transfer": transfer.to_json() if transfer else None}
    run = call_on_main(lambda: Run.begin(config.run, config, "pretrain", config.resume, **metadata))
    if call_on_main(lambda: run.is_closed):
        return run
    all_traces = [*traces, *(t for m in (labels.training_cases, *stores.manifests[1:]) for t in leakage.trace_cases(m))]
    call_on_main(lambda: leakage.write_traces(run.path, all_traces))
    pool = call_on_main(lambda: labels.open_pool(run.path))
    loaders = make_loaders(config, objective, pool)
    facts = {name: CasePool((pool.manifest, *stores.manifests[1:])).column(name) for name in METADATA_LABELS}
    callbacks: list[Callback] = [RepresentationMonitor(run, facts), *([DenseProbeCallback(probe)] if probe else [])]
    scores = train(objective, loaders, run, config.train, callbacks, plateau, config.limits)
    if is_main_process():
        warn_about_unfinished(run, scores)
        run.close()
    return run


def describe_model(config: PretrainConfig, pool: CasePool) -> TrainedModel:
    """Returns the model to train on a pool; its spacing is None if the stores have different ones.

    Raises:
        BadInput: The stores have different normalizations, or volumes different numbers of channels.
    """
    manifests = pool.manifests
    if config.single_channel:
        manifests = tuple(replace(m, cases=tuple(replace(c, channels=1) for c in m.cases)) for m in manifests)
    specs = [TrainedModel.for_manifest(m, config.encoder, config.patch_size) for m in manifests]
    first, folders = specs[0], [str(m.folder) for m in manifests]
    for spec, folder in zip(specs, folders, strict=True):
        if spec.normalization != first.normalization:
            raise BadInput(
                f"pool: {folder} has another intensity normalization than {folders[0]}; ingest it again with"
                f" --normalization {folders[0]}"
            )
        if spec.in_channels != first.in_channels:
            raise BadInput(
                f"pool: {folder} has volumes with {spec.in_channels} channels, {folders[0]} with {first.in_channels};"
                " train on one channel of each with single_channel=true"
            )
    if config.single_channel and (first.normalization.landmarks or first.normalization.hu_channels):
        raise BadInput(
            f"single_channel=true: {folders[0]} has a normalization of its own for each channel; ingest it again with"
            " the default one"
        )
    spacing_mm = first.spacing_mm if len({spec.spacing_mm for spec in specs}) == 1 else None
    units = sorted({unit for spec in specs for unit in spec.units})
    return first.model_copy(update={"spacing_mm": spacing_mm, "units": tuple(units)})


def make_probe(config: PretrainConfig, manifest: Manifest, spec: TrainedModel) -> DenseProbe | None:
    """Returns the configured dense probe, if any."""
    if not config.num_probe_volumes:
        return None
    return DenseProbe.from_manifest(manifest, spec, config.num_probe_volumes, config.train.seed)


def build_objective(
    config: PretrainConfig, spec: TrainedModel, num_classes: int | None = None
) -> tuple[Objective, dict[str, Tensor] | None, TransferReport | None]:
    """Builds the objective with fresh weights, with the encoder of a finished run, or from the plateau of one.

    Args:
        config: Settings of the pretraining.
        spec: Encoder and input of the network.
        num_classes: Number of classes of the labels, with background; None without labels.

    Returns:
        The objective, the plateau that the optimizer continues from, and what happened to every pretrained tensor.

    Raises:
        BadInput: The weights do not fit, or the training would never change an untrained encoder.
    """
    torch.manual_seed(config.train.seed)
    encoder, objective_class = spec.build_encoder(), class_for_config(config.objective)
    settings = config.objective
    if num_classes and objective_class.learns_from_labels:
        settings = settings.model_copy(update={"num_classes": num_classes})
    path = config.continue_from or config.start_from
    if path is None:
        objective: Objective = objective_class(settings, encoder)
        if objective.needs_start:
            raise BadInput("objective distil compares with the encoder of an earlier training; give start_from=RUN")
        if config.train.freeze_fraction == 1 or not any(weight.requires_grad for weight in encoder.parameters()):
            raise BadInput("this pretraining never changes its encoder, which is untrained; give start_from=RUN")
        return objective, None, None
    run = Run.open(path)
    spec.require_compatible(run)
    if config.start_from:
        # Before the objective is built, because it may copy the encoder.
        transfer = weight_transfer.load_parts(run.weights, {"encoder": encoder})
        return objective_class(settings, encoder), None, transfer
    objective, plateau = objective_class(settings, encoder), plateau_checkpoint.read_plateau(run)
    plateau_checkpoint.load_learner(objective, plateau)
    return objective, plateau, None


def check_objective(config: PretrainConfig, objective: Objective, spec: TrainedModel, cases: Manifest) -> None:
    """Raises BadInput if the objective does not accept the augmentation, the patch size or the number of cases."""
    if config.augment and not objective.allows_spatial_augmentation:
        raise BadInput(
            f"objective {config.objective.name} compares positions in the scan, which augmentation would move;"
            " leave out augment"
        )
    if config.labels.source != "none" and not objective.learns_from_labels:
        raise BadInput(
            f"labels.source={config.labels.source}: objective {config.objective.name} learns from no labels; leave out"
            " labels, or set objective.name=synthetic"
        )
    group_batches(cases, config.spread_by, config.train.batch_size)
    objective.read_cases([case.id for case in cases.cases])
    objective.check_crop(torch.empty(1, spec.in_channels, *config.patch_size, device="meta"))
    if config.labels.source == "none" and len(cases.cases) < config.train.batch_size:
        raise BadInput(
            f"{config.manifest}: split {config.split!r} has {len(cases.cases)} cases, a batch takes"
            f" {config.train.batch_size} different ones; lower train.batch_size, or ingest more cases"
        )


def make_loaders(config: PretrainConfig, objective: Objective, pool: LabelPool) -> DataLoaders:
    """Returns crops of the cases and of further stores, with labels if any and the views that the objective needs."""
    make_dataset = partial(
        CropDataset,
        normalization=pool.normalization,
        patch_size=config.patch_size,
        num_views=objective.views,
        min_overlap=config.min_view_overlap,
        labelled=pool.classes is not None,
        classes=pool.classes,
        seed=config.train.seed,
        augment_config=config.augment,
        spread=group_batches(pool.manifest, config.spread_by, config.train.batch_size),
    )
    stores = CasePool.read(pool.manifest, config.pool, config.split)
    objective.read_cases(stores.column("id"))
    dataset = (
        PooledCrops(stores, make_dataset, config.sampling_temperature, config.single_channel, config.train.seed)
        if config.draws_groups
        else make_dataset(pool.manifest)
    )
    return DataLoaders(train_loader(dataset, config.train), case_ids=stores.column("id"))
