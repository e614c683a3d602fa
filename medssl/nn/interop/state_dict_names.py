"""Maps the tensor names of encoders to those of nnU-Net and MONAI, to import and export weights.

`ResEncoder` and `PlainConvEncoder` have the same tensors as the encoders of `dynamic-network-architectures`, which
nnU-Net and nnssl (OpenMind) train. The encoders from MONAI keep MONAI's names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.nn.encoders.base import BaseEncoderConfig, Encoder
from medssl.nn.interop.weight_transfer import TransferReport, load_named_tensors

LAYER_NAMES = {"first": "conv1", "second": "conv2"}
DUPLICATE_NAMES = {".conv.": ".all_modules.0.", ".norm.": ".all_modules.1."}  # nnU-Net stores each layer twice


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


def load_encoder(
    config: BaseEncoderConfig, in_channels: int, tensors: Mapping[str, Tensor], where: str, fresh: str = ""
) -> ImportedEncoder:
    """Builds an encoder with the tensors of a checkpoint under upstream names.

    Args:
        config: The config of the encoder.
        in_channels: Number of input channels.
        tensors: The tensors by their upstream names.
        where: Name of the file, for error messages.
        fresh: Prefix of the keys that may be missing and keep their initial values; "" for none.

    Raises:
        BadInput: If a tensor of the encoder is missing or has another shape.
    """
    encoder = config.build(in_channels)
    names = {f"encoder.{key}": name for key, name in get_upstream_names(encoder).items()}
    renamed = {key: tensors[name] for key, name in names.items() if name in tensors}
    unused = {name: "no such tensor in the encoder" for name in tensors if name not in names.values()}
    report = load_named_tensors({"encoder": encoder}, renamed, names, tensors, unused, where, fresh)
    return ImportedEncoder(config, encoder, report)


def find_duplicates(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns, for every tensor that nnU-Net stores again under another name, a reason not to use it."""
    reasons = {}
    for name, value in tensors.items():
        original = _to_original_name(name)
        if original != name and original in tensors:
            is_equal = torch.equal(value, tensors[original])
            reasons[name] = f"a copy of {original}" if is_equal else f"differs from {original}, which is used"
    return reasons


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


def write_checkpoint(tensors: Mapping[str, Tensor], path: Path, licences: Sequence[Mapping[str, Any]] = ()) -> None:
    """Writes tensors atomically.

    Args:
        tensors: The tensors by name.
        path: A .safetensors file, or a .pth or .pt file that holds the tensors as `network_weights`, as in nnU-Net.
        licences: Origin and licence of weights that the tensors started from, which the file keeps under `licences`.
    """
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise BadInput(f"{path}: unknown file type {path.suffix!r}; use .safetensors, .pth or .pt")
    with atomic_file(path) as file:
        if path.suffix == ".safetensors":
            save_file(dict(tensors), file, {"licences": json.dumps([*licences])} if licences else None)
        else:
            facts = {"licences": [dict(licence) for licence in licences]} if licences else {}
            torch.save({"network_weights": dict(tensors)} | facts, file)


def _reverse_axes(value: Tensor) -> Tensor:
    """Returns a kernel with its three axes in reverse order, and any other tensor as it is."""
    return value.permute(0, 1, 4, 3, 2) if value.ndim == 5 else value


def _to_nnunet_name(key: str, is_pooled: Sequence[bool]) -> str:
    """Returns the name in nnU-Net of a tensor of an encoder from there; `is_pooled` has one entry for each stage."""
    part, _, suffix = key.partition(".")
    if part == "stem":
        return f"encoder.stem.convs.0.{suffix}"
    stage, block, layer, suffix = suffix.split(".", 3)
    if layer in ("conv", "norm"):
        return f"encoder.stages.{stage}.0.convs.{block}.{layer}.{suffix}"
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
