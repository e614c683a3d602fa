"""Imports the network of a checkpoint of another project as a finished run.

A whole segmentation network is a run that predicts and that finetuning starts from; an encoder, with or without its
decoder, is a start for finetuning.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, PositiveInt
from torch import nn

from medssl.errors import BadInput
from medssl.files import sha256
from medssl.models.nnunet_plans import TrainingPlan, read_plan
from medssl.models.provenance import encoder_metadata
from medssl.models.trained_model import TrainedModel
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.executor import Triple
from medssl.nn.interop import (
    monai_bundle,
    monai_state_dict,
    nnunet_network,
    primus,
    state_dict_names,
    weight_transfer,
)
from medssl.nn.interop.checkpoint_file import Checkpoint, read_checkpoint
from medssl.nn.interop.nnunet_network import NnUNet
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.segment import Config as SegmentConfig

log = logging.getLogger(__name__)

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


@dataclass(frozen=True)
class ImportedNetwork:
    """What a checkpoint gave: the model, its parts with their weights, and the status of each tensor of the file."""

    model: TrainedModel
    parts: Mapping[str, nn.Module]
    report: weight_transfer.TransferReport


def import_weights(settings: ImportConfig) -> tuple[Run, weight_transfer.TransferReport]:
    """Writes a finished run that holds the imported network.

    nnU-Net standardizes a CT with moments of its training set; the encoder then does the same. It standardizes an MR
    with the moments of the scan, medssl scales it to [0, 1] by percentiles: the norm behind the first convolution
    removes the difference in scale, and in shift except near the border of a window. The network of a MONAI bundle
    was trained on values scaled by that bundle; finetuning has to adapt to the difference.

    Returns:
        The run, and the status of every tensor of the file.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of layers that a file may lack
        network = _read_network(settings)
    weights = settings.file / monai_bundle.WEIGHTS if settings.file.is_dir() else settings.file
    source = {"file": settings.file.name, "sha256": sha256(weights), "licence": settings.licence}
    metadata = {"network": network.model.model_dump(mode="json"), "transfer": network.report.to_json()}
    encoder = network.parts["encoder"]
    if not isinstance(encoder, Encoder):
        raise TypeError(f"{type(encoder).__name__} is no encoder")
    run = Run.create(settings.run, settings, "import", **metadata, **encoder_metadata(encoder, "imported", source))
    weight_transfer.save_parts(network.parts, run.path / "weights.safetensors")
    run.close()
    return run, network.report


def _read_network(settings: ImportConfig) -> ImportedNetwork:
    """Reads the network of a checkpoint file or of a bundle folder."""
    where = str(settings.file)
    if settings.file.is_dir():
        return _read_bundle(settings)
    checkpoint = read_checkpoint(settings.file)
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
    """Reads the encoder of a MONAI bundle."""
    if (settings.file / "plans.json").is_file():
        raise BadInput(
            f"{settings.file}: a folder of nnU-Net; give one of its checkpoints, fold_0/checkpoint_final.pth"
        )
    if settings.strides:
        raise BadInput(f"{settings.file}: a MONAI bundle defines its own strides; leave out --strides")
    return _describe_encoder(monai_bundle.import_bundle(settings.file))


def _describe_encoder(imported: state_dict_names.ImportedEncoder, plan: TrainingPlan | None = None) -> ImportedNetwork:
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


def _round_patch_size(plan: TrainingPlan, encoder: Encoder) -> Triple:
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
