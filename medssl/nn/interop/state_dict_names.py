"""Encoder weights under other people's names: nnU-Net's residual encoders read and written, MONAI's networks written.

A ResEncoder is, tensor by tensor, the encoder of `dynamic-network-architectures`, which nnU-Net and nnssl (OpenMind)
train; the encoders taken from MONAI keep MONAI's names. Nothing is ever unpickled.
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
from medssl.files import atomic
from medssl.nn.encoders import resenc, residual
from medssl.nn.encoders.base import Choice, Encoder, triples
from medssl.nn.executor import Triple
from medssl.nn.interop import weight_transfer as transfer
from medssl.nn.interop.weight_transfer import Entry, Ledger

log = logging.getLogger(__name__)
PLACES = {"first": "conv1", "second": "conv2"}
SECOND = {".conv.": ".all_modules.0.", ".norm.": ".all_modules.1."}  # a layer is stored by name and by number
BLOCK = re.compile(r"encoder\.stages\.(\d+)\.blocks\.(\d+)\.conv1\.conv\.weight")
# Numbers of numpy, which trainers leave in their logs; the name of what makes them changed with numpy 2.
SCALAR: Any = np.float64(0).__reduce__()[0]
KINDS: list[Any] = [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType, np.dtypes.BoolDType]
HARMLESS = [np.dtype, *KINDS, (SCALAR, "numpy.core.multiarray.scalar"), (SCALAR, "numpy._core.multiarray.scalar")]


@dataclass(frozen=True)
class Adopted:
    """An encoder filled from somebody else's file, how to build it again, and what became of every tensor."""

    choice: Choice
    encoder: Encoder
    ledger: Ledger


def names(encoder: Encoder) -> dict[str, str]:
    """For each tensor of an encoder its name in the network it comes from; empty where that is ours alone."""
    if encoder.origin == "monai":
        return {key: key for key in encoder.state_dict()}
    if not encoder.origin:
        return {}
    pooled = [max(stride) > 1 for stride in encoder.strides]
    return {key: _nnunet(key, pooled) for key in encoder.state_dict()}


def read(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a checkpoint of nnU-Net or nnssl, or of a safetensors file, by their names there."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return transfer.read(path)
    if not path.is_file():
        raise BadInput(f"{path}: no checkpoint here")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise BadInput(f"{path}: more than tensors, or torn ({said}); save its state dict as safetensors") from None
    for key in ("network_weights", "state_dict"):
        found = found[key] if isinstance(found, dict) and key in found else found
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    return {k.removeprefix("module.").removeprefix("_orig_mod."): v for k, v in tensors.items()}


def adopt(tensors: Mapping[str, Tensor], strides: Sequence[int | Triple] | None, where: str) -> Adopted:
    """The residual encoder that a checkpoint holds; refused where a tensor of it is missing or of another shape."""
    choice = describe(tensors, strides, where)
    return filled(choice, tensors["encoder.stem.convs.0.conv.weight"].shape[1], tensors, where)


def filled(choice: Choice, in_channels: int, tensors: Mapping[str, Tensor], where: str) -> Adopted:
    """An encoder with the tensors that a checkpoint has for it; refused where one is missing or of another shape."""
    encoder = choice.build(in_channels)
    ours = {theirs: f"encoder.{key}" for key, theirs in names(encoder).items()}
    second = {key: first for key in tensors if (first := _first(key)) != key and first in tensors}
    named = {ours.get(key, key): value for key, value in tensors.items() if key not in second}
    fates = transfer.fill(named, {"encoder": encoder}, where).entries
    theirs = {key: f"is {name} there" for name, key in ours.items()}
    told = [replace(e, reason=theirs[e.key]) if e.fate == "loaded" else e for e in fates]
    copies = [_copy(tensors, key, first) for key, first in second.items()]
    ledger = Ledger((*told, *copies))
    if lacking := [f"{e.key} ({e.reason})" for e in told if e.fate != "loaded" and e.key in theirs]:
        shown = "; ".join(lacking[:4])
        raise BadInput(f"{where}: {len(lacking)} tensors of the encoder are not there as they must be: {shown}")
    return Adopted(choice, encoder, ledger)


def describe(tensors: Mapping[str, Tensor], strides: Sequence[int | Triple] | None, where: str) -> Choice:
    """The encoder that a checkpoint's names and shapes tell of; strides, if not given, are those of its decoder."""
    blocks = [match.groups() for key in tensors if (match := BLOCK.fullmatch(key))]
    if "encoder.stem.convs.0.conv.weight" not in tensors or not blocks:
        some = ", ".join(sorted(tensors)[:3]) or "none"
        raise BadInput(
            f"{where}: no residual encoder of nnU-Net; its tensors are {some}, wanted encoder.stem.convs.0..."
        )
    depths = [sum(int(s) == stage for s, _ in blocks) for stage in range(1 + max(int(s) for s, _ in blocks))]
    if 0 in depths:
        raise BadInput(f"{where}: its stage {depths.index(0)} has no block; the checkpoint is torn")
    weights = [tensors[f"encoder.stages.{stage}.blocks.0.conv1.conv.weight"] for stage in range(len(depths))]
    if any(w.shape[2:] != (3, 3, 3) for w in weights):
        raise BadInput(f"{where}: kernels of {[tuple(w.shape[2:]) for w in weights]}; 3x3x3 alone is built here")
    steps = tuple(strides) if strides else _strides(tensors, len(depths))
    if len(steps) != len(depths):
        raise BadInput(f"{where}: {len(steps)} strides for {len(depths)} stages")
    batch = "encoder.stem.convs.0.norm.running_mean" in tensors
    bias = "encoder.stem.convs.0.conv.bias" in tensors
    found = residual.Config(
        channels=tuple(len(w) for w in weights),
        strides=tuple(s[0] if len(set(s)) == 1 else s for s in triples(steps)),
        blocks=tuple(depths),
        norm="batch" if batch else "instance",
        bias=bias,
    )
    return _preset(found) or found


def export(encoder: Encoder, to: str) -> dict[str, Tensor]:
    """The weights by the names of `monai` or `nnunet`, for which a network of theirs must be what this one is."""
    if encoder.origin != to:
        there = f"a network of {encoder.origin}" if encoder.origin else "in neither"
        raise BadInput(f"a {type(encoder).__name__} is {there}, so that its weights have no names in {to}")
    state = {theirs: encoder.state_dict()[ours] for ours, theirs in names(encoder).items()}
    seconds = {copy: value for key, value in state.items() for copy in (_copies(key) if to == "nnunet" else ())}
    return {key: value.detach().cpu().clone().contiguous() for key, value in (state | seconds).items()}


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, or, if the file is called .pth or .pt, as torch has it, `network_weights` for nnU-Net."""
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise BadInput(f"{path}: a name that ends in .safetensors, .pth or .pt says how to write")
    with atomic(path) as part:
        if path.suffix == ".safetensors":
            save_file(dict(tensors), part)
        else:
            torch.save({"network_weights": dict(tensors)}, part)


def _nnunet(key: str, pooled: Sequence[bool]) -> str:
    part, _, rest = key.partition(".")
    if part == "stem":
        return f"encoder.stem.convs.0.{rest}"
    stage, block, place, rest = rest.split(".", 3)
    # The shortcut's projection stands behind its pool, if there is one.
    there = PLACES.get(place) or f"skip.{int(pooled[int(stage)])}"
    return f"encoder.stages.{stage}.blocks.{block}.{there}.{rest}"


def _first(key: str) -> str:
    """The first of the names that one tensor has in a checkpoint."""
    key = key.removeprefix("decoder.") if key.startswith("decoder.encoder.") else key
    for name, number in SECOND.items():
        key = key.replace(number, name)
    return key


def _copies(key: str) -> list[str]:
    """The other names of a tensor: layers are stored twice, and the decoder stores the encoder once more."""
    numbered = key
    for name, number in SECOND.items():
        numbered = numbered.replace(name, number)
    return [numbered, f"decoder.{key}", f"decoder.{numbered}"]


def _copy(tensors: Mapping[str, Tensor], key: str, first: str) -> Entry:
    same = torch.equal(tensors[key], tensors[first])
    said = f"a copy of {first}" if same else f"differs from {first}, which is taken"
    return Entry(key, "skipped", tuple(tensors[key].shape), said)


def _strides(tensors: Mapping[str, Tensor], stages: int) -> tuple[Triple, ...]:
    """What the decoder raises by, the encoder strides by; without a decoder, two a stage."""
    ups = [tensors.get(f"decoder.transpconvs.{n}.weight") for n in reversed(range(stages - 1))]
    found = [tuple(up.shape[2:]) for up in ups if up is not None]
    if len(found) < stages - 1:
        log.warning("no decoder in the file to tell the strides: taken for 2 from stage to stage; else give them")
        found = [(2, 2, 2)] * (stages - 1)
    return ((1, 1, 1), *((i, j, k) for i, j, k in found))


def _preset(found: residual.Config) -> Choice | None:
    for size, n in resenc.STAGES.items():
        if (found.channels, found.blocks, found.bias) == (resenc.CHANNELS[:n], resenc.BLOCKS[:n], True):
            plain = resenc.Config.model_validate({"size": size, "norm": found.norm})
            usual = plain.steps == found.strides
            return plain if usual else plain.model_copy(update={"strides": found.strides})
    return None
