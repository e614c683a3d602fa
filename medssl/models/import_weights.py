"""Imports the network of a checkpoint of another project as a finished run.

A whole segmentation network is a run that predicts and, if the network exists here, that finetuning starts from; an
encoder, with or without its decoder, is a start for finetuning.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.files import sha256
from medssl.models.bundles.bundle_model import BUNDLE, BundleModel
from medssl.models.bundles.read_bundle import read_bundle_model
from medssl.models.export_monai_bundle import BundledModel
from medssl.models.nnunet_plans import TrainingPlan, read_plan
from medssl.models.provenance import encoder_metadata
from medssl.models.trained_model import TrainedModel
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.executor import Triple
from medssl.nn.interop import (
    monai_bundle,
    monai_networks,
    monai_state_dict,
    nnunet_network,
    primus,
    state_dict_names,
    weight_transfer,
)
from medssl.nn.interop.bundle_config import BundleConfig
from medssl.nn.interop.checkpoint_file import Checkpoint, read_checkpoint
from medssl.nn.interop.nnunet_network import NnUNet
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.segment import Config as SegmentConfig

log = logging.getLogger(__name__)

PUBLISHED_NETWORK = f"{BundledModel.__module__}.{BundledModel.__name__}"
MIN_PATCH_SIDE = 64  # voxels; the patch size is required metadata, finetuning chooses its own


class ImportConfig(Settings):
    """Settings of `medssl import-weights`."""

    file: Path = Field(description="a checkpoint of another project, or the folder of a MONAI bundle")
    run: Path = Field(description="the run to write: a folder that does not exist yet")
    licence: str = Field(min_length=1, description="the licence of the weights, e.g. CC-BY-4.0")
    strides: tuple[int | Triple, ...] | None = Field(
        None,
        description="stride of each encoder stage along z, y, x, as in nnU-Net; null infers them from the checkpoint",
    )
    num_heads: PositiveInt | None = Field(
        None, description="attention heads of a Primus; null takes those of the published network of the same width"
    )
    labels: tuple[str, ...] = Field(
        (), description="names of the classes 1, 2, ... of a network without dataset.json; () reads or numbers them"
    )
    encoder_only: bool = Field(
        False, description="import of a MONAI bundle the encoder alone, as a start of a finetuning"
    )
    replacements: dict[str, Any] = Field(
        {}, description="values that replace those of a MONAI bundle's configuration, by their ids, as inferer#roi_size"
    )


@dataclass(frozen=True)
class ImportedNetwork:
    """What a checkpoint gave.

    Args:
        model: The model that finetuning starts from; None if the network has no equal here.
        parts: The parts of the network with their weights.
        report: The status of each tensor of the file.
        bundle: The whole network of a MONAI bundle; None if there is none.
    """

    model: TrainedModel | None
    parts: Mapping[str, nn.Module]
    report: weight_transfer.TransferReport
    bundle: BundleModel | None = None

    def to_metadata(self, source: dict[str, Any]) -> dict[str, Any]:
        """Returns what run.json states about the network.

        Args:
            source: Name, hash and licence of the file.
        """
        facts: dict[str, Any] = {"transfer": self.report.to_json(), "objective": "imported", "data": source}
        if self.bundle:
            facts[BUNDLE] = self.bundle.model_dump(mode="json")
        if self.model:
            facts |= {"network": self.model.model_dump(mode="json")}
            encoder = self.parts["encoder"]
            if not isinstance(encoder, Encoder):
                raise TypeError(f"{type(encoder).__name__} is no encoder")
            facts |= encoder_metadata(encoder, "imported", source)
        return facts


def import_weights(settings: ImportConfig) -> tuple[Run, weight_transfer.TransferReport]:
    """Writes a finished run that holds the imported network.

    nnU-Net standardizes a CT with moments of its training set; the encoder then does the same. It standardizes an MR
    with the moments of the scan, medssl scales it to [0, 1] by percentiles: the norm behind the first convolution
    removes the difference in scale, and in shift except near the border of a window. The network of a MONAI bundle
    predicts on values that are prepared as in that bundle; a finetuning of its encoder has to adapt to the difference.

    Returns:
        The run, and the status of every tensor of the file.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of layers that a file may lack
        network = _read_network(settings)
    weights = settings.file / monai_bundle.WEIGHTS if settings.file.is_dir() else settings.file
    source = {"file": settings.file.name, "sha256": sha256(weights), "licence": settings.licence}
    run = Run.create(settings.run, settings, "import", **network.to_metadata(source))
    weight_transfer.save_parts(network.parts, run.path / "weights.safetensors")
    run.close()
    return run, network.report


def _read_network(settings: ImportConfig) -> ImportedNetwork:
    """Reads the network of a checkpoint file or of a bundle folder."""
    where = str(settings.file)
    if settings.file.is_dir():
        return _read_bundle(settings)
    checkpoint = read_checkpoint(settings.file)
    if settings.encoder_only or settings.replacements:
        raise BadInput(f"{where}: only folders of MONAI bundles take --encoder-only and --set; leave them out")
    if nnunet_network.is_nnunet(checkpoint.tensors):
        return _read_nnunet(settings, checkpoint)
    if settings.strides or settings.labels:
        raise BadInput(f"{where}: only the networks of nnU-Net take --strides and --labels; leave them out")
    if primus.is_primus(checkpoint.tensors):
        return _read_primus(settings, checkpoint)
    if monai_state_dict.is_monai(checkpoint.tensors):
        return _describe_encoder(monai_state_dict.import_state_dict(checkpoint.tensors, where))
    raise BadInput(
        f"{where}: holds {monai_state_dict.describe_network(checkpoint.tensors)}; supported are PlainConvUNet and"
        " ResidualEncoderUNet of nnU-Net and nnssl, the first version of Primus, and SwinUNETR and SegResNet of MONAI"
        " (also from VoCo and SuPreM)"
    )


def _read_primus(settings: ImportConfig, checkpoint: Checkpoint) -> ImportedNetwork:
    """Reads the transformer of a Primus of nnU-Net or nnssl."""
    where, plan = str(settings.file), read_plan(checkpoint.values, settings.file)
    imported = primus.import_primus(
        checkpoint.tensors, where, settings.num_heads, plan.patch_size, plan.axes, plan.input_mean_std
    )
    return _describe_encoder(imported, plan)


def _read_bundle(settings: ImportConfig) -> ImportedNetwork:
    """Reads the whole network of a MONAI bundle, and its encoder if that exists here, or the encoder alone."""
    folder = settings.file
    if (folder / "plans.json").is_file():
        raise BadInput(f"{folder}: a folder of nnU-Net; give one of its checkpoints, fold_0/checkpoint_final.pth")
    if settings.strides:
        raise BadInput(f"{folder}: a MONAI bundle defines its own strides; leave out --strides")
    config, tensors = BundleConfig.read(folder, settings.replacements), monai_bundle.read_weights(folder)
    target, arguments = monai_bundle.read_network(config)
    if target == PUBLISHED_NETWORK:
        return _read_published(folder, tensors)
    if settings.encoder_only:
        return _describe_encoder(monai_bundle.import_encoder(config, tensors))
    network = monai_networks.describe_network(target, arguments, str(config.file))
    bundle = read_bundle_model(config, network, settings.labels)
    parts, report = monai_networks.load_network(network, tensors, str(folder / monai_bundle.WEIGHTS))
    try:
        start = _describe_encoder(monai_bundle.import_encoder(config, tensors), bundle)
    except BadInput as error:
        log.info("no start for a finetuning: %s", error)
        return ImportedNetwork(None, parts, report, bundle)
    return ImportedNetwork(start.model, {**parts, **start.parts}, report, bundle)


def _read_published(folder: Path, tensors: Mapping[str, Tensor]) -> ImportedNetwork:
    """Reads the network of a bundle that `medssl publish --monai` wrote."""
    model = TrainedModel.from_run(Run.open(folder))
    parts = model.build_task().transferable()
    names = {f"{part}.{key}": f"task.{part}.{key}" for part, module in parts.items() for key in module.state_dict()}
    renamed = {key: tensors[name] for key, name in names.items() if name in tensors}
    unused = {name: "no such tensor in the network" for name in tensors if name not in names.values()}
    where = str(folder / monai_bundle.WEIGHTS)
    report = weight_transfer.load_named_tensors(parts, renamed, names, tensors, unused, where)
    return ImportedNetwork(model, parts, report)


def _describe_encoder(
    imported: state_dict_names.ImportedEncoder, plan: TrainingPlan | BundleModel | None = None
) -> ImportedNetwork:
    """Returns the model of an encoder, with spacing, patch size and intensities of its plan if it has one."""
    plan = plan or TrainingPlan()
    model = TrainedModel(
        encoder=imported.config,
        in_channels=imported.encoder.in_channels,
        normalization=plan.normalization,
        spacing_mm=plan.spacing_mm,
        patch_size=_round_patch_size(plan, imported.encoder),
    )
    return ImportedNetwork(model, {"encoder": imported.encoder}, imported.report)


def _round_patch_size(plan: TrainingPlan | BundleModel, encoder: Encoder) -> Triple:
    """Returns the patch size of a plan, or one of 64 voxels a side, rounded up to the total stride."""
    patch_size = plan.patch_size or (MIN_PATCH_SIDE,) * 3
    i, j, k = (-(-n // stride) * stride for n, stride in zip(patch_size, encoder.patch, strict=True))
    return i, j, k


def _read_nnunet(settings: ImportConfig, checkpoint: Checkpoint) -> ImportedNetwork:
    """Reads encoder, decoder and, if its classes are known, segmentation layers of a U-Net of nnU-Net or nnssl."""
    where, plan = str(settings.file), read_plan(checkpoint.values, settings.file)
    network = nnunet_network.read_network(checkpoint.tensors, where, settings.strides, plan.axes, plan.input_mean_std)
    encoder = network.encoder.build(network.in_channels)
    model = TrainedModel(
        encoder=network.encoder,
        in_channels=network.in_channels,
        normalization=plan.normalization,
        spacing_mm=plan.spacing_mm,
        patch_size=_round_patch_size(plan, encoder),
        task=SegmentConfig(
            deep_supervision_levels=max(1, network.num_heads),
            decoder_convs=network.decoder_convs or SegmentConfig().decoder_convs,
            preactivation_head=False,
        ),
        labels=_name_classes(settings, plan, network),
        units=("HU",) if plan.is_ct else (),
    )
    parts: dict[str, nn.Module] = {"encoder": encoder}
    if model.labels:
        parts = model.build_task().transferable()
    elif network.decoder_convs:
        parts["decoder"] = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels, network.decoder_convs)
    tensors = {key: value for key, value in network.tensors.items() if key.partition(".")[0] in parts}
    reason = _explain_missing_heads(plan)
    unused = network.unused | {network.names[key]: reason for key in network.tensors.keys() - tensors.keys()}
    report = weight_transfer.load_named_tensors(parts, tensors, network.names, checkpoint.tensors, unused, where)
    return ImportedNetwork(model, parts, report)


def _name_classes(settings: ImportConfig, plan: TrainingPlan, network: NnUNet) -> dict[int, str]:
    """Returns the class names of a whole segmentation network; empty if the file holds none."""
    count = network.num_outputs - 1
    if count < 1 or not network.decoder_convs or plan.is_pretraining or plan.has_regions:
        return {}
    names = dict(enumerate(settings.labels, 1)) or dict(plan.labels)
    if not names:
        log.warning("the file does not name its %d classes: they are numbered; --labels names them", count)
        return {n: f"class {n}" for n in range(1, count + 1)}
    if sorted(names) != list(range(1, count + 1)):
        raise BadInput(
            f"{settings.file}: the network has {count} classes, the names are {', '.join(names.values())}; give the"
            " names of classes 1, 2, ... with --labels"
        )
    return names


def _explain_missing_heads(plan: TrainingPlan) -> str:
    """Returns why segmentation layers are not used."""
    if plan.has_regions:
        return "predicts overlapping regions, which are decided by another rule here"
    return "its outputs are no classes"
