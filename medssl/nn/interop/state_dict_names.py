"""Maps the tensor names of encoders to those of nnU-Net and MONAI, to import and export weights.

`ResEncoder` has the same tensors as the encoder of `dynamic-network-architectures`, which nnU-Net and nnssl (OpenMind)
train. The encoders from MONAI keep MONAI's names. Nothing is unpickled.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.nn.encoders import resenc, residual
from medssl.nn.encoders.base import BaseEncoderConfig, Encoder, as_triples
from medssl.nn.executor import Triple
from medssl.nn.interop.weight_transfer import TensorStatus, TransferReport, fill_parts, read_tensors

log = logging.getLogger(__name__)
LAYER_NAMES = {"first": "conv1", "second": "conv2"}
DUPLICATE_NAMES = {".conv.": ".all_modules.0.", ".norm.": ".all_modules.1."}  # nnU-Net stores each layer twice
BLOCK = re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.conv\.weight")
# Trainers log numpy scalars; the name of the function that builds them changed in numpy 2.
BUILD_SCALAR: Any = np.float64(0).__reduce__()[0]
SCALAR_TYPES: list[Any] = [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType, np.dtypes.BoolDType]
SAFE_GLOBALS = [
    np.dtype,
    *SCALAR_TYPES,
    (BUILD_SCALAR, "numpy.core.multiarray.scalar"),
    (BUILD_SCALAR, "numpy._core.multiarray.scalar"),
]


@dataclass(frozen=True)
class ImportedEncoder:
    """An encoder with weights of another project, the config that rebuilds it, and the status of each tensor."""

    config: BaseEncoderConfig
    encoder: Encoder
    report: TransferReport


def get_upstream_names(encoder: Encoder) -> dict[str, str]:
    """Returns the name of each tensor of an encoder in its upstream network; empty if it has no upstream network."""
    if encoder.upstream == "monai":
        return {key: key for key in encoder.state_dict()}
    if not encoder.upstream:
        return {}
    is_pooled = [max(stride) > 1 for stride in encoder.strides]
    return {key: _to_nnunet_name(key, is_pooled) for key in encoder.state_dict()}


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Reads the tensors of a checkpoint of nnU-Net or nnssl, or of a safetensors file, under their original names.

    Raises:
        BadInput: If the file is missing or holds objects other than tensors and plain values.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        message = str(error).partition("\n")[0]
        raise BadInput(
            f"{path}: holds objects other than tensors, or is damaged ({message}); save its state dict as safetensors"
        ) from None
    for key in ("network_weights", "state_dict"):
        checkpoint = checkpoint[key] if isinstance(checkpoint, dict) and key in checkpoint else checkpoint
    values = checkpoint if isinstance(checkpoint, dict) else {}
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
    return {k.removeprefix("module.").removeprefix("_orig_mod."): v for k, v in tensors.items()}


def import_encoder(
    tensors: Mapping[str, Tensor], strides: Sequence[int | Triple] | None, where: str
) -> ImportedEncoder:
    """Builds the residual encoder of a checkpoint of nnU-Net or nnssl, with its axes in the order of a store.

    nnU-Net's arrays run along z, y, x and those of a store along x, y, z, so that kernels and strides are reversed.

    Args:
        tensors: The tensors by their names in nnU-Net.
        strides: The stride of each stage in nnU-Net's order, as in its plans; None infers them from the decoder.
        where: Name of the file, for error messages.

    Raises:
        BadInput: If the checkpoint holds no such encoder, or a tensor is missing or has another shape.
    """
    tensors = {name: _reverse_axes(value) for name, value in tensors.items()}
    strides = strides and [(s[2], s[1], s[0]) for s in as_triples(strides)]
    config = infer_encoder_config(tensors, strides, where)
    return load_encoder(config, tensors["encoder.stem.convs.0.conv.weight"].shape[1], tensors, where)


def load_encoder(
    config: BaseEncoderConfig, in_channels: int, tensors: Mapping[str, Tensor], where: str
) -> ImportedEncoder:
    """Builds an encoder with the tensors of a checkpoint under upstream names.

    Raises:
        BadInput: If a tensor of the encoder is missing or has another shape.
    """
    encoder = config.build(in_channels)
    keys = {name: f"encoder.{key}" for key, name in get_upstream_names(encoder).items()}
    duplicates = {
        key: original for key in tensors if (original := _to_original_name(key)) != key and original in tensors
    }
    renamed = {keys.get(name, name): value for name, value in tensors.items() if name not in duplicates}
    entries = fill_parts(renamed, {"encoder": encoder}, where).entries
    upstream = {key: f"named {name} in the file" for name, key in keys.items()}
    entries = tuple(replace(e, reason=upstream[e.key]) if e.status == "loaded" else e for e in entries)
    report = TransferReport((*entries, *(_report_duplicate(tensors, key, name) for key, name in duplicates.items())))
    if missing := [f"{e.key} ({e.reason})" for e in entries if e.status != "loaded" and e.key in upstream]:
        raise BadInput(
            f"{where}: {len(missing)} tensors of the encoder are missing or have another shape: "
            f"{'; '.join(missing[:4])}; use a checkpoint of this architecture"
        )
    return ImportedEncoder(config, encoder, report)


def infer_encoder_config(
    tensors: Mapping[str, Tensor], strides: Sequence[int | Triple] | None, where: str
) -> BaseEncoderConfig:
    """Infers the config of a residual encoder from a checkpoint whose axes are in the order of a store."""
    blocks = [match.groups() for key in tensors if (match := BLOCK.fullmatch(key))]
    if "encoder.stem.convs.0.conv.weight" not in tensors or not blocks:
        examples = ", ".join(sorted(tensors)[:3]) or "none"
        raise BadInput(
            f"{where}: not a residual encoder of nnU-Net; its tensors are {examples}, expected encoder.stem.convs.0..."
        )
    depths = [sum(int(s) == stage for s, _ in blocks) for stage in range(1 + max(int(s) for s, _ in blocks))]
    if 0 in depths:
        raise BadInput(f"{where}: stage {depths.index(0)} has no block; the checkpoint is incomplete")
    weights = [tensors[f"encoder.stages.{stage}.blocks.0.conv1.conv.weight"] for stage in range(len(depths))]
    kernels = [(w.shape[2], w.shape[3], w.shape[4]) for w in weights]
    stem = tuple(tensors["encoder.stem.convs.0.conv.weight"].shape[2:])
    if stem != kernels[0] or any(side % 2 == 0 for kernel in kernels for side in kernel):
        raise BadInput(
            f"{where}: the kernels are {stem} in the stem and {kernels} in the stages; supported are odd ones, of which"
            " stem and first stage share theirs"
        )
    steps = tuple(strides) if strides else _infer_strides(tensors, len(depths))
    if len(steps) != len(depths):
        raise BadInput(f"{where}: got {len(steps)} strides for {len(depths)} stages; give one stride for each stage")
    has_batch_norm = "encoder.stem.convs.0.norm.running_mean" in tensors
    config = residual.Config(
        channels=tuple(len(w) for w in weights),
        strides=tuple(s[0] if len(set(s)) == 1 else s for s in as_triples(steps)),
        kernels=() if set(kernels) == {(3, 3, 3)} else tuple(kernels),
        blocks=tuple(depths),
        norm="batch" if has_batch_norm else "instance",
        bias="encoder.stem.convs.0.conv.bias" in tensors,
    )
    return _find_preset(config) or config


def export_tensors(encoder: Encoder, to: str) -> dict[str, Tensor]:
    """Returns copies of the weights of an encoder under the names, and in the axis order, of another project.

    Args:
        encoder: An encoder of a network that exists in that project.
        to: "monai" or "nnunet".

    Raises:
        BadInput: If the project has no such network.
    """
    if encoder.upstream != to:
        upstream = (
            f"only {encoder.upstream} has this network" if encoder.upstream else "no other project has this network"
        )
        raise BadInput(f"the weights of a {type(encoder).__name__} have no names in {to}: {upstream}")
    state = {name: encoder.state_dict()[key] for key, name in get_upstream_names(encoder).items()}
    if to == "nnunet":
        state = {name: _reverse_axes(value) for name, value in state.items()}
        state |= {duplicate: value for name, value in state.items() for duplicate in _list_duplicate_names(name)}
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def write_checkpoint(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors atomically.

    Args:
        tensors: The tensors by name.
        path: A .safetensors file, or a .pth or .pt file that holds the tensors as `network_weights`, as in nnU-Net.
    """
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise BadInput(f"{path}: unknown file type {path.suffix!r}; use .safetensors, .pth or .pt")
    with atomic_file(path) as file:
        if path.suffix == ".safetensors":
            save_file(dict(tensors), file)
        else:
            torch.save({"network_weights": dict(tensors)}, file)


def _reverse_axes(value: Tensor) -> Tensor:
    """Returns a kernel with its three axes in reverse order, and any other tensor as it is."""
    return value.permute(0, 1, 4, 3, 2) if value.ndim == 5 else value


def _to_nnunet_name(key: str, is_pooled: Sequence[bool]) -> str:
    """Returns the name of a tensor of a ResEncoder in nnU-Net; `is_pooled` has one entry for each stage."""
    part, _, suffix = key.partition(".")
    if part == "stem":
        return f"encoder.stem.convs.0.{suffix}"
    stage, block, layer, suffix = suffix.split(".", 3)
    # In nnU-Net, the projection of a shortcut is numbered behind the pooling layer, if there is one.
    name = LAYER_NAMES.get(layer) or f"skip.{int(is_pooled[int(stage)])}"
    return f"encoder.stages.{stage}.blocks.{block}.{name}.{suffix}"


def _to_original_name(key: str) -> str:
    """Returns the first of the several names under which nnU-Net stores a tensor."""
    key = key.removeprefix("decoder.") if key.startswith("decoder.encoder.") else key
    for name, number in DUPLICATE_NAMES.items():
        key = key.replace(number, name)
    return key


def _list_duplicate_names(key: str) -> list[str]:
    """Returns the other names of a tensor: nnU-Net stores layers twice, and the encoder again inside the decoder."""
    numbered = key
    for name, number in DUPLICATE_NAMES.items():
        numbered = numbered.replace(name, number)
    return [numbered, f"decoder.{key}", f"decoder.{numbered}"]


def _report_duplicate(tensors: Mapping[str, Tensor], key: str, original: str) -> TensorStatus:
    is_equal = torch.equal(tensors[key], tensors[original])
    reason = f"a copy of {original}" if is_equal else f"differs from {original}, which is used"
    return TensorStatus(key, "skipped", tuple(tensors[key].shape), reason)


def _infer_strides(tensors: Mapping[str, Tensor], stages: int) -> tuple[Triple, ...]:
    """Returns the strides of the decoder's upsampling, or strides of 2 with a warning if there is no decoder."""
    kernels = [tensors.get(f"decoder.transpconvs.{n}.weight") for n in reversed(range(stages - 1))]
    strides = [tuple(kernel.shape[2:]) for kernel in kernels if kernel is not None]
    if len(strides) < stages - 1:
        log.warning("the file has no decoder to infer the strides from: assuming 2 for each stage but the first")
        strides = [(2, 2, 2)] * (stages - 1)
    return ((1, 1, 1), *((i, j, k) for i, j, k in strides))


def _find_preset(config: residual.Config) -> BaseEncoderConfig | None:
    """Returns the preset with the widths, depths and biases of a config, or None."""
    for size, n in resenc.STAGES.items():
        if (config.channels, config.blocks, config.bias) == (resenc.CHANNELS[:n], resenc.BLOCKS[:n], True):
            preset = resenc.Config.model_validate({"size": size, "norm": config.norm, "kernels": config.kernels})
            has_default_strides = preset.steps == config.strides
            return preset if has_default_strides else preset.model_copy(update={"strides": config.strides})
    return None
