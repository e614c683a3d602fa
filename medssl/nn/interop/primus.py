"""Reads the transformer of a Primus of nnU-Net or nnssl: infers its architecture and renames its tensors."""

import math
from collections.abc import Mapping, Sequence

from einops import rearrange
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.encoders import primus
from medssl.nn.encoders.base import MeanAndStd
from medssl.nn.executor import Triple
from medssl.nn.interop.nnunet_network import REVERSED_AXES
from medssl.nn.interop.state_dict_names import ImportedEncoder
from medssl.nn.interop.weight_transfer import load_named_tensors

PROJECTION = "down_projection.proj.weight"
POSITIONS = "eva.pos_embed"
FIRST_BLOCK = "eva.blocks.0.attn.q_proj.weight"
FINEST_WIDTH = 16
PUBLISHED_HEADS = {396: 6, 792: 12, 864: 12, 1056: 16}  # by width: Primus S, B, M, L


def is_primus(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether a checkpoint holds a Primus that projects patches linearly, which is its first version."""
    return {PROJECTION, FIRST_BLOCK} <= tensors.keys()


def import_primus(
    tensors: Mapping[str, Tensor],
    where: str,
    num_heads: int | None = None,
    patch_size: Triple | None = None,
    axes: Triple = REVERSED_AXES,
    input_mean_std: Sequence[MeanAndStd] = (),
) -> ImportedEncoder:
    """Builds an encoder with the tensors of a Primus; the finer levels, which a decoder reads, are fresh.

    Args:
        tensors: The tensors by their names in dynamic-network-architectures.
        where: Name of the file, for error messages.
        num_heads: Attention heads; None takes those of the published network of the same width.
        patch_size: Size of the training crops in voxels, along the axes of a store; None takes a cube.
        axes: For each axis of a store, x, y and z, the number of that axis in the network.
        input_mean_std: Mean and standard deviation of each channel that the network expects to be standardized with.

    Raises:
        BadInput: If the architecture is another one, or a tensor is missing or has another shape.
    """
    config = _infer_config(tensors, where, num_heads, patch_size, axes, input_mean_std)
    encoder = config.build(tensors[PROJECTION].shape[1])
    names = {f"encoder.{key}": _to_primus_name(key) for key in encoder.state_dict() if "expansions" not in key}
    renamed = {key: _permute_axes(key, tensors[name], axes, config) for key, name in names.items() if name in tensors}
    reason = "the finer levels are fresh"
    unused = {name: reason for name in tensors if name not in names.values()}
    report = load_named_tensors(
        {"encoder": encoder}, renamed, names, tensors, unused, where, fresh="encoder.expansions"
    )
    return ImportedEncoder(config, encoder, report)


def _infer_config(
    tensors: Mapping[str, Tensor],
    where: str,
    num_heads: int | None,
    patch_size: Triple | None,
    axes: Triple,
    input_mean_std: Sequence[MeanAndStd],
) -> primus.Config:
    """Infers the config from names and shapes."""
    if any(name.startswith("register_tokens") for name in tensors):
        raise BadInput(f"{where}: a Primus with register tokens, which are not supported")
    width, sides = len(tensors[PROJECTION]), tensors[PROJECTION].shape[2:]
    heads = num_heads or PUBLISHED_HEADS.get(width)
    if heads is None:
        raise BadInput(
            f"{where}: a Primus of width {width}, which is none of {', '.join(map(str, PUBLISHED_HEADS))}; give its"
            " attention heads with --num-heads"
        )
    patch = (sides[axes[0]], sides[axes[1]], sides[axes[2]])
    strides = _split_patch(patch, where)
    blocks = {name.split(".")[2] for name in tensors if name.startswith("eva.blocks.")}
    return primus.Config(
        channels=(*(FINEST_WIDTH * 2**level for level in range(len(strides) - 1)), width),
        strides=strides,
        depth=len(blocks),
        num_heads=heads,
        grid=_infer_grid(tensors[POSITIONS], patch, patch_size, where) if POSITIONS in tensors else None,
        layer_scale=0.1 if "eva.blocks.0.gamma_1" in tensors else None,
        attention_norm="eva.blocks.0.attn.norm.weight" in tensors,
        input_mean_std=tuple(input_mean_std),
    )


def _split_patch(patch: Triple, where: str) -> tuple[Triple, ...]:
    """Returns the strides of the levels, fine to coarse, that double each axis up to a patch."""
    if any(side & (side - 1) for side in patch):
        raise BadInput(f"{where}: patches of {patch} voxels; supported are powers of two")
    strides: list[Triple] = [(1, 1, 1)]
    while max(patch) > 1:
        i, j, k = (min(side, 2) for side in patch)
        strides.append((i, j, k))
        patch = (patch[0] // i, patch[1] // j, patch[2] // k)
    return tuple(strides)


def _infer_grid(positions: Tensor, patch: Triple, patch_size: Triple | None, where: str) -> Triple:
    """Returns the patches along each axis of a store that the learned positions are for."""
    count = positions.shape[1]
    side = round(count ** (1 / 3))
    grid = (side, side, side)
    if patch_size:
        i, j, k = (voxels // width for voxels, width in zip(patch_size, patch, strict=True))
        grid = (i, j, k)
    if math.prod(grid) != count:
        raise BadInput(f"{where}: {count} learned positions are no grid of {' x '.join(map(str, grid))} patches")
    return grid


def _to_primus_name(key: str) -> str:
    """Returns the name in Primus of a tensor of the encoder."""
    if key == "positions":
        return POSITIONS
    return key.replace("projection.", "down_projection.proj.") if key.startswith("projection.") else f"eva.{key}"


def _permute_axes(key: str, value: Tensor, axes: Triple, config: primus.Config) -> Tensor:
    """Returns a tensor with its axes in the order of a store; rotary positions give each axis a third of a head."""
    if key == "encoder.projection.weight":
        return value.permute(0, 1, *(axis + 2 for axis in axes))
    if key == "encoder.positions" and config.grid is not None:
        p, q, r = (config.grid[axes.index(axis)] for axis in range(3))
        grid = rearrange(value, "b (p q r) d -> b d p q r", p=p, q=q, r=r)
        return grid.permute(0, 1, *(axis + 2 for axis in axes))
    if key.endswith((".q_proj.weight", ".q_proj.bias", ".k_proj.weight")):
        heads = value.unflatten(0, (config.num_heads, 3, -1))
        return heads[:, list(axes)].flatten(0, 2)
    return value
