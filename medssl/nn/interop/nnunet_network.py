"""Reads whole U-Nets of nnU-Net and nnssl: infers their architecture, and renames their tensors to those of medssl.

The networks are `PlainConvUNet` and `ResidualEncoderUNet` of dynamic-network-architectures. Their decoder is the
`UNetDecoder` of medssl with biases in front of its norms, which the norms remove.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.encoders import plainconv, resenc, residual
from medssl.nn.encoders.base import MeanAndStd, StandardizingConfig, as_triples
from medssl.nn.executor import Triple
from medssl.nn.interop.state_dict_names import find_duplicates, get_upstream_names

log = logging.getLogger(__name__)

RESIDUAL_LAYER = re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.conv\.weight")
PLAIN_LAYER = re.compile(r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.conv\.weight")
DECODER_LAYER = re.compile(r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)")
REMOVED_BIAS = "the norm behind it removes it"
REVERSED_AXES = (2, 1, 0)


@dataclass(frozen=True)
class NnUNet:
    """A U-Net of nnU-Net with its axes in the order of a store.

    Attributes:
        encoder: The config of the encoder.
        in_channels: Number of input channels.
        decoder_convs: Convolutions of each level of the decoder; 0 if the decoder cannot be used.
        num_outputs: Output channels of the segmentation layers; 0 if there are none.
        num_heads: Number of segmentation layers, from the finest level.
        tensors: The tensors by their names in medssl.
        names: The names in the file of these tensors.
        unused: Why the other tensors are not used, by their names in the file.
    """

    encoder: StandardizingConfig
    in_channels: int
    decoder_convs: int
    num_outputs: int
    num_heads: int
    tensors: dict[str, Tensor]
    names: dict[str, str]
    unused: dict[str, str]


def is_nnunet(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether a checkpoint holds an encoder of nnU-Net."""
    return any(RESIDUAL_LAYER.fullmatch(name) or PLAIN_LAYER.fullmatch(name) for name in tensors)


def read_network(
    tensors: Mapping[str, Tensor],
    where: str,
    strides: Sequence[int | Triple] | None = None,
    axes: Triple = REVERSED_AXES,
    input_mean_std: Sequence[MeanAndStd] = (),
) -> NnUNet:
    """Reads a U-Net of nnU-Net or nnssl.

    Args:
        tensors: The tensors by their names in nnU-Net.
        where: Name of the file, for error messages.
        strides: The stride of each stage in nnU-Net's order, as in its plans; None infers them from the decoder.
        axes: For each axis of a store, x, y and z, the number of that axis in the network. nnU-Net's arrays run along
            z, y, x unless its plans transpose them.
        input_mean_std: Mean and standard deviation of each channel that the network expects to be standardized with.

    Raises:
        BadInput: If the checkpoint holds no supported encoder.
    """
    tensors = {name: _permute_axes(value, axes) for name, value in tensors.items()}
    steps = strides and [(s[axes[0]], s[axes[1]], s[axes[2]]) for s in as_triples(strides)]
    config = infer_encoder_config(tensors, steps, where).model_copy(update={"input_mean_std": tuple(input_mean_std)})
    in_channels = tensors[_first_layer(config)].shape[1]
    with torch.device("meta"):
        encoder = config.build(in_channels)
    names = {f"encoder.{key}": name for key, name in get_upstream_names(encoder).items()}
    levels, unused = len(encoder.channels), find_duplicates(tensors)
    decoder_convs, reason = _count_decoder_convs(tensors, levels)
    if decoder_convs:
        names |= _name_decoder([name for name in tensors if name not in unused], levels)
    for name in tensors:
        if decoder_convs and name.startswith("decoder.stages.") and name.endswith(".conv.bias"):
            unused.setdefault(name, REMOVED_BIAS)
        elif name not in names.values():
            unused.setdefault(name, reason if name.startswith("decoder.") else "no such tensor in the network")
    heads = [key for key in names if key.startswith("heads.") and key.endswith(".weight")]
    renamed = {key: tensors[name] for key, name in names.items() if name in tensors}
    return NnUNet(
        encoder=config,
        in_channels=in_channels,
        decoder_convs=decoder_convs,
        num_outputs=len(renamed["heads.0.conv.weight"]) if heads else 0,
        num_heads=len(heads),
        tensors=renamed | _zero_biases(renamed),
        names=names,
        unused=unused,
    )


def infer_encoder_config(
    tensors: Mapping[str, Tensor], strides: Sequence[int | Triple] | None, where: str
) -> StandardizingConfig:
    """Infers the config of an encoder from a checkpoint with its axes in the order of a store."""
    is_residual = any(RESIDUAL_LAYER.fullmatch(name) for name in tensors)
    pattern = RESIDUAL_LAYER if is_residual else PLAIN_LAYER
    layers = [match.groups() for name in tensors if (match := pattern.fullmatch(name))]
    if not layers or (is_residual and "encoder.stem.convs.0.conv.weight" not in tensors):
        examples = ", ".join(sorted(tensors)[:3]) or "none"
        raise BadInput(
            f"{where}: no encoder of nnU-Net; its tensors are {examples}, expected encoder.stages.0... and, in a"
            " residual network, encoder.stem.convs.0..."
        )
    depths = [sum(int(s) == stage for s, _ in layers) for stage in range(1 + max(int(s) for s, _ in layers))]
    if 0 in depths:
        raise BadInput(f"{where}: stage {depths.index(0)} has no layer; the checkpoint is incomplete")
    layer = "blocks.0.conv1" if is_residual else "0.convs.0"
    weights = [tensors[f"encoder.stages.{stage}.{layer}.conv.weight"] for stage in range(len(depths))]
    kernels = [(w.shape[2], w.shape[3], w.shape[4]) for w in weights]
    first = "encoder.stem.convs.0" if is_residual else "encoder.stages.0.0.convs.0"
    stem = tuple(tensors[f"{first}.conv.weight"].shape[2:])
    if stem != kernels[0] or any(side % 2 == 0 for kernel in kernels for side in kernel):
        raise BadInput(
            f"{where}: the kernels are {stem} in the stem and {kernels} in the stages; supported are odd ones, of which"
            " stem and first stage share theirs"
        )
    steps = tuple(strides) if strides else _infer_strides(tensors, len(depths))
    if len(steps) != len(depths):
        raise BadInput(f"{where}: got {len(steps)} strides for {len(depths)} stages; give one stride for each stage")
    values = {
        "channels": tuple(len(w) for w in weights),
        "strides": tuple(s[0] if len(set(s)) == 1 else s for s in as_triples(steps)),
        "kernels": () if set(kernels) == {(3, 3, 3)} else tuple(kernels),
        "norm": "batch" if f"{first}.norm.running_mean" in tensors else "instance",
        "bias": f"{first}.conv.bias" in tensors,
    }
    if not is_residual:
        return plainconv.Config.model_validate(values | {"convs": tuple(depths)})
    config = residual.Config.model_validate(values | {"blocks": tuple(depths)})
    return _find_preset(config) or config


def _first_layer(config: StandardizingConfig) -> str:
    is_plain = isinstance(config, plainconv.Config)
    return "encoder.stages.0.0.convs.0.conv.weight" if is_plain else "encoder.stem.convs.0.conv.weight"


def _permute_axes(value: Tensor, axes: Triple) -> Tensor:
    """Returns a kernel with its three axes in the order of a store, and any other tensor as it is."""
    return value.permute(0, 1, *(2 + axis for axis in axes)) if value.ndim == 5 else value


def _count_decoder_convs(tensors: Mapping[str, Tensor], levels: int) -> tuple[int, str]:
    """Returns the number of convolutions of each decoder level, or 0 and the reason why there is no usable decoder."""
    layers = [match for name in tensors if (match := DECODER_LAYER.fullmatch(name))]
    counts = {
        sum(m[1] == str(stage) and m[3] == "conv" and m[4] == "weight" for m in layers) for stage in range(levels - 1)
    }
    has_norms = any(m[3] == "norm" for m in layers)
    if any(m[4] == "running_mean" for m in layers):
        return 0, "the decoder has batch norm, which a decoder of medssl has not"
    if levels < 2 or len(counts) > 1 or 0 in counts or not has_norms:
        return 0, "no decoder of nnU-Net with the same number of convolutions at each level"
    return counts.pop(), ""


def _name_decoder(tensors: Sequence[str], levels: int) -> dict[str, str]:
    """Returns the name in the file of each tensor of decoder and heads; nnU-Net counts levels from coarse to fine."""
    names: dict[str, str] = {}
    for name in tensors:
        part, _, rest = name.removeprefix("decoder.").partition(".")
        stage, _, suffix = rest.partition(".")
        level = levels - 2 - int(stage) if stage.isdecimal() else -1
        layer = DECODER_LAYER.fullmatch(name)
        if part == "transpconvs":
            names[f"decoder.ups.{level}.{suffix}"] = name
        elif part == "seg_layers":
            names[f"heads.{level}.conv.{suffix}"] = name
        elif layer and (layer[3], layer[4]) != ("conv", "bias"):
            names[f"decoder.merges.{level}.{3 * int(layer[2]) + (layer[3] == 'norm')}.{layer[4]}"] = name
    return names


def _zero_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns zero biases for the upsampling layers of a network that was built without them."""
    ups = {key: value for key, value in tensors.items() if key.startswith("decoder.ups.") and key.endswith(".weight")}
    biases = {f"{key.removesuffix('weight')}bias": value.new_zeros(value.shape[1]) for key, value in ups.items()}
    return {key: value for key, value in biases.items() if key not in tensors}


def _infer_strides(tensors: Mapping[str, Tensor], stages: int) -> tuple[Triple, ...]:
    """Returns the strides of the decoder's upsampling, or strides of 2 with a warning if there is no decoder."""
    kernels = [tensors.get(f"decoder.transpconvs.{n}.weight") for n in reversed(range(stages - 1))]
    strides = [tuple(kernel.shape[2:]) for kernel in kernels if kernel is not None]
    if len(strides) < stages - 1:
        log.warning("the file has no decoder to infer the strides from: assuming 2 for each stage but the first")
        strides = [(2, 2, 2)] * (stages - 1)
    return ((1, 1, 1), *((i, j, k) for i, j, k in strides))


def _find_preset(config: residual.Config) -> StandardizingConfig | None:
    """Returns the preset with the widths, depths and biases of a config, or None."""
    for size, n in resenc.STAGES.items():
        if (config.channels, config.blocks, config.bias) == (resenc.CHANNELS[:n], resenc.BLOCKS[:n], True):
            preset = resenc.Config.model_validate({"size": size, "norm": config.norm, "kernels": config.kernels})
            has_default_strides = preset.steps == config.strides
            return preset if has_default_strides else preset.model_copy(update={"strides": config.strides})
    return None
