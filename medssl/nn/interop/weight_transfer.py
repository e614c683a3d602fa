"""Weights out to a file and in from one, with a ledger of what became of every tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.files import atomic


@dataclass(frozen=True)
class Entry:
    """What became of one tensor: of the file, or of the network where the file has none for it."""

    key: str
    fate: Literal["loaded", "adapted", "skipped"]
    shape: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class Ledger:
    """Every tensor of a file and of the network it went to; prints as a table."""

    entries: tuple[Entry, ...]

    def count(self, fate: Literal["loaded", "adapted", "skipped"]) -> int:
        """How many tensors met a fate."""
        return sum(e.fate == fate for e in self.entries)

    def json(self) -> list[dict[str, Any]]:
        """The entries as plain values."""
        return [asdict(e) | {"shape": list(e.shape)} for e in self.entries]

    def __str__(self) -> str:
        width = max((len(e.key) for e in self.entries), default=0)
        rows = [f"{e.key:<{width}}  {e.fate:<7}  {'x'.join(map(str, e.shape)):<16}  {e.reason}" for e in self.entries]
        total = f"{self.count('loaded')} loaded, {self.count('adapted')} adapted, {self.count('skipped')} skipped"
        return "\n".join([*(r.rstrip() for r in rows), total])


def save(parts: Mapping[str, nn.Module], path: Path | str) -> None:
    """Writes the parts' tensors as safetensors, with keys such as "encoder.stem.conv.weight"; whole or not at all."""
    tensors = {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    write(tensors, path)


def write(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Writes named tensors, of which no two may share their memory, as safetensors; whole or not at all."""
    with atomic(path) as file:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, file)


def read(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; nothing is ever unpickled."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no weights here; give the weights.safetensors of a finished run")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path}: not a safetensors file ({error}); only safetensors are read, never pickles") from None


def load(path: Path | str, parts: Mapping[str, nn.Module], channels: Sequence[int] = ()) -> Ledger:
    """Fills the parts from a file and tells the fate of every tensor; a file that fills nothing is refused."""
    return fill(read(path), parts, str(path), channels)


def fill(
    tensors: Mapping[str, Tensor], parts: Mapping[str, nn.Module], where: str, channels: Sequence[int] = ()
) -> Ledger:
    """Fills the parts from named tensors and tells the fate of every one.

    Where the network's input holds only some `channels` of the file's, it computes what the file's network computes
    of an input whose other channels are blank; without a word on which they are, of the channels' mean.
    """
    own = {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    entries = [_put(key, value, own.get(key), set(parts), channels) for key, value in sorted(tensors.items())]
    missing = sorted(set(own) - set(tensors))
    absent = [Entry(key, "skipped", tuple(own[key].shape), "not in the file: keeps its fresh start") for key in missing]
    ledger = Ledger((*entries, *absent))
    if ledger.count("loaded") + ledger.count("adapted") == 0:
        wanted = ", ".join(sorted(own)[:2])
        raise BadInput(f"{where}: none of its {len(tensors)} tensors fits; the network wants keys such as {wanted}")
    return ledger


def _put(key: str, value: Tensor, own: Tensor | None, parts: set[str], channels: Sequence[int]) -> Entry:
    """Copies one tensor in place; a state dict's tensors are the module's own."""
    shape = tuple(value.shape)
    if own is None:
        known = key.partition(".")[0] in parts
        return Entry(key, "skipped", shape, "no such tensor in the network" if known else "this part is not wanted")
    if not torch.isfinite(value).all():
        return Entry(key, "skipped", shape, "holds NaN or infinity")
    if own.shape == value.shape:
        own.copy_(value)
        return Entry(key, "loaded", shape)
    if value.ndim == 5 and own.ndim == 5 and own.shape[0] == shape[0] and own.shape[2:] == value.shape[2:]:
        if len(channels) == own.shape[1]:
            own.copy_(value[:, list(channels)])
            return Entry(key, "adapted", shape, f"input channels {', '.join(map(str, channels))} of {shape[1]}")
        own.copy_(value.mean(1, keepdim=True).expand_as(own) * (shape[1] / own.shape[1]))
        return Entry(key, "adapted", shape, f"mean over {shape[1]} input channels, spread over {own.shape[1]}")
    return Entry(key, "skipped", shape, f"the network's is {tuple(own.shape)}")
