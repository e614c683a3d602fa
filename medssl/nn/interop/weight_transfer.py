"""Saves and loads weights, and reports for each tensor whether it was loaded, adapted or skipped."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.nn.encoders.base import Encoder


@dataclass(frozen=True)
class TensorStatus:
    """The status of one tensor of the file, or of a tensor of the network that the file lacks.

    Attributes:
        key: The name of the tensor.
        status: Whether it was copied, copied after a change of its input channels, or not copied.
        shape: Its shape in the file, or in the network if the file lacks it.
        reason: Why it was adapted or skipped.
    """

    key: str
    status: Literal["loaded", "adapted", "skipped"]
    shape: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class TransferReport:
    """The status of each tensor of a file and of the network it was loaded into; `str` formats it as a table."""

    entries: tuple[TensorStatus, ...]

    def count(self, status: Literal["loaded", "adapted", "skipped"]) -> int:
        """Returns the number of tensors with a status."""
        return sum(e.status == status for e in self.entries)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the entries as values that JSON can store."""
        return [asdict(e) | {"shape": list(e.shape)} for e in self.entries]

    def __str__(self) -> str:
        width = max((len(e.key) for e in self.entries), default=0)
        rows = [f"{e.key:<{width}}  {e.status:<7}  {'x'.join(map(str, e.shape)):<16}  {e.reason}" for e in self.entries]
        total = f"{self.count('loaded')} loaded, {self.count('adapted')} adapted, {self.count('skipped')} skipped"
        return "\n".join([*(r.rstrip() for r in rows), total])


def save_parts(parts: Mapping[str, nn.Module], path: Path | str) -> None:
    """Writes the tensors of several modules atomically as safetensors; one that modules share is written once.

    Args:
        parts: The modules by the prefix of their keys, such as "encoder" for "encoder.stem.conv.weight".
        path: The file to write.
    """
    tensors = {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    first_name = {value.data_ptr(): name for name, value in reversed(tensors.items())}
    unique = {
        name: value for name, value in tensors.items() if first_name[value.data_ptr()] == name or not value.numel()
    }
    write_tensors(unique, path)


def write_tensors(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Writes named tensors atomically as safetensors; no two of them may share memory.

    Raises:
        BadInput: A tensor is not finite; nothing is written.
    """
    broken = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise BadInput(
            f"{path}: {broken[0]} holds NaN or infinity ({len(broken)} of {len(tensors)} tensors), so the weights are"
            " not written; train again with a lower train.lr, or start from other weights"
        )
    with atomic_file(path) as file:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, file)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file, without unpickling.

    Raises:
        BadInput: If the file is missing or is no safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give the weights.safetensors of a finished run")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(
            f"{path}: not a safetensors file ({error}); only safetensors files are read, never pickles"
        ) from None


def load_parts(
    path: Path | str,
    parts: Mapping[str, nn.Module],
    channels: Sequence[int] = (),
    input_layers: Collection[str] = (),
) -> TransferReport:
    """Loads a file into several modules; see `fill_parts`."""
    return fill_parts(read_tensors(path), parts, str(path), channels, input_layers)


def fill_parts(
    tensors: Mapping[str, Tensor],
    parts: Mapping[str, nn.Module],
    where: str,
    channels: Sequence[int] = (),
    input_layers: Collection[str] = (),
) -> TransferReport:
    """Copies named tensors into several modules, in place.

    A convolution with fewer or more input channels than in the file is adapted. With `channels`, the result equals that
    of the network of the file for an input with zeros in the other channels. Without, it equals that of the network of
    the file for an input in which each channel is the mean of the given channels.

    Args:
        tensors: The tensors with keys such as "encoder.stem.conv.weight".
        parts: The modules by the prefix of their keys.
        where: Name of the file, for error messages.
        channels: For each input channel of the network, its number in the file; () if unknown.
        input_layers: Keys of the tensors that read the input channels, if the network has them in another order than
            the file: no shape shows it then.

    Returns:
        The status of each tensor.

    Raises:
        BadInput: If no tensor fits.
    """
    state = {f"{part}.{key}": value for part, module in parts.items() for key, value in module.state_dict().items()}
    names = {key: _rename_for_channels(key, parts, channels) for key in sorted(tensors)}
    entries = [
        _copy_tensor(key, tensors[key], state.get(name), parts, channels, key in input_layers)
        for key, name in names.items()
    ]
    missing = [
        TensorStatus(key, "skipped", tuple(state[key].shape), "not in the file: keeps its initial value")
        for key in sorted(set(state) - set(names.values()))
    ]
    report = TransferReport((*entries, *missing))
    if report.count("loaded") + report.count("adapted") == 0:
        examples = ", ".join(sorted(state)[:2])
        raise BadInput(f"{where}: none of its {len(tensors)} tensors fits; the network has keys such as {examples}")
    return report


def load_named_tensors(
    parts: Mapping[str, nn.Module],
    renamed: Mapping[str, Tensor],
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    unused: Mapping[str, str],
    where: str,
    fresh: str = "",
) -> TransferReport:
    """Copies the tensors of a file into modules, in place, and reports every tensor of the file.

    Args:
        parts: The modules by the prefix of their keys.
        renamed: The tensors by their names in medssl.
        names: The names in the file of these tensors, and of those that the modules need.
        tensors: All tensors of the file.
        unused: Why the other tensors are not used, by their names in the file.
        where: Name of the file, for error messages.
        fresh: Prefix of the keys that may be missing and keep their initial values; "" for none.

    Raises:
        BadInput: If a tensor of the modules is missing or has another shape.
    """
    entries = fill_parts(renamed, parts, where).entries
    needed = [e for e in entries if not (fresh and e.key.startswith(fresh) and e.key not in renamed)]
    if missing := [f"{names.get(e.key, e.key)} ({e.reason})" for e in needed if e.status != "loaded"]:
        raise BadInput(
            f"{where}: {len(missing)} tensors are missing or have another shape: {'; '.join(missing[:4])}; use a"
            " checkpoint of this architecture"
        )
    loaded = (
        replace(e, reason=f"named {names[e.key]} in the file") if e.status == "loaded" and e.key in names else e
        for e in entries
    )
    skipped = (TensorStatus(name, "skipped", tuple(tensors[name].shape), reason) for name, reason in unused.items())
    return TransferReport((*loaded, *skipped))


def _rename_for_channels(key: str, parts: Mapping[str, nn.Module], channels: Sequence[int]) -> str:
    """Returns the name in the network of a tensor of a file; it differs in an encoder with layers for each channel."""
    part, _, name = key.partition(".")
    module = parts.get(part)
    return f"{part}.{module.rename_for_channels(name, channels)}" if channels and isinstance(module, Encoder) else key


def _copy_tensor(
    key: str,
    value: Tensor,
    target: Tensor | None,
    parts: Mapping[str, nn.Module],
    channels: Sequence[int],
    is_reordered: bool,
) -> TensorStatus:
    """Copies one tensor into the memory of a module."""
    shape = tuple(value.shape)
    part = key.partition(".")[0]
    if target is None:
        has_part = part in parts
        reason = "no such tensor in the network" if has_part else "this part is not loaded"
        return TensorStatus(key, "skipped", shape, reason)
    if not torch.isfinite(value).all():
        return TensorStatus(key, "skipped", shape, "holds NaN or infinity")
    if target.shape == value.shape and not is_reordered:
        target.copy_(value)
        return TensorStatus(key, "loaded", shape)
    if value.ndim == 5 and target.ndim == 5 and target.shape[0] == shape[0] and target.shape[2:] == value.shape[2:]:
        maps = getattr(parts[part], "maps_per_channel", 1)
        if shape[1] % maps or target.shape[1] % maps:
            maps = 1
        by_channel, target_by_channel = (x.unflatten(1, (-1, maps)) for x in (value, target))
        file_channels, num_channels = by_channel.shape[1], target_by_channel.shape[1]
        if len(channels) == num_channels:
            target_by_channel.copy_(by_channel[:, list(channels)])
            names = ", ".join(map(str, channels))
            return TensorStatus(key, "adapted", shape, f"input channels {names} of {file_channels}")
        target_by_channel.copy_(by_channel.mean(1, keepdim=True) * (file_channels / num_channels))
        reason = f"mean over {file_channels} input channels, distributed over {num_channels}"
        return TensorStatus(key, "adapted", shape, reason)
    return TensorStatus(key, "skipped", shape, f"the shape in the network is {tuple(target.shape)}")
