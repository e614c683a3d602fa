"""Builds whole segmentation networks of MONAI from plain values."""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from monai.networks import nets
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medssl.config import check
from medssl.errors import BadInput
from medssl.nn.interop.checkpoint_file import strip_wrappers
from medssl.nn.interop.weight_transfer import TransferReport, load_named_tensors
from medssl.settings import Settings

NETWORKS: Mapping[str, type[nn.Module]] = {
    "UNet": nets.UNet, "BasicUNet": nets.BasicUNet, "SegResNet": nets.SegResNet, "DynUNet": nets.DynUNet,
    "UNETR": nets.UNETR, "SwinUNETR": nets.SwinUNETR,
}  # fmt: skip
OLD_ARGUMENTS = {"SwinUNETR": ("img_size",)}  # of earlier versions of MONAI; they change no tensor and no output
PART = "network"  # begins the names of the tensors of a run
CLASS_ARGUMENTS = ("norm_layer",)  # take a class, which is no plain value
MAX_NUMBER, MAX_ITEMS, MAX_DEPTH = 10_000, 64, 4
WORD = re.compile(r"\w{0,40}")


class MonaiNetwork(Settings):
    """A network of MONAI with its arguments, which are plain values."""

    name: Literal["UNet", "BasicUNet", "SegResNet", "DynUNet", "UNETR", "SwinUNETR"] = Field(
        description="name of the class in MONAI"
    )
    arguments: dict[str, Any] = Field(description="arguments of the class, with the names they have in MONAI")

    @field_validator("arguments")
    @classmethod
    def _check_values(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name, value in arguments.items():
            if not _is_plain(value, 0):
                raise ValueError(f"{name} is {str(value)[:80]!r}; expected numbers, words, or lists and tables of them")
        return arguments

    @model_validator(mode="after")
    def _check_names(self) -> "MonaiNetwork":
        parameters = inspect.signature(NETWORKS[self.name].__init__).parameters
        allowed = [name for name in parameters if name not in ("self", *CLASS_ARGUMENTS)]
        unknown = sorted(set(self.arguments) - {*allowed, *OLD_ARGUMENTS.get(self.name, ())})
        if unknown:
            raise ValueError(f"{self.name} takes no {unknown[0]}; it takes {', '.join(allowed)}")
        if self._get("spatial_dims") != 3:
            raise ValueError(f"spatial_dims is {self._get('spatial_dims')}; only networks for volumes, with 3, predict")
        if any(not isinstance(self._get(name), int) or self._get(name) < 1 for name in ("in_channels", "out_channels")):
            raise ValueError("in_channels and out_channels must be numbers from 1")
        return self

    @property
    def in_channels(self) -> int:
        """The number of channels of its input."""
        return int(self._get("in_channels"))

    @property
    def out_channels(self) -> int:
        """The number of channels of its output."""
        return int(self._get("out_channels"))

    def build(self, device: str = "cpu") -> nn.Module:
        """Builds the network with fresh weights; on the device "meta" it has shapes, but takes no memory.

        Raises:
            BadInput: If MONAI refuses the arguments.
        """
        old = OLD_ARGUMENTS.get(self.name, ())
        arguments = {name: value for name, value in self.arguments.items() if name not in old}
        try:
            with torch.device(device), _LinspaceOnCpu():
                return NETWORKS[self.name](**arguments)
        except (TypeError, ValueError, LookupError, RuntimeError, AssertionError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{self.name}: MONAI refuses its arguments ({reason}); correct the bundle") from None

    def _get(self, name: str) -> Any:
        """Returns an argument, or its default in MONAI; None if it has none."""
        default = inspect.signature(NETWORKS[self.name].__init__).parameters[name].default
        return self.arguments.get(name, None if default is inspect.Parameter.empty else default)


class _LinspaceOnCpu(TorchFunctionMode):
    """Leaves `linspace` on the CPU, since MONAI reads numbers from it, which a tensor without memory does not have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **((kwargs or {}) | ({"device": "cpu"} if func is torch.linspace else {})))


def describe_network(target: str, arguments: Mapping[str, Any], where: str) -> MonaiNetwork:
    """Returns a network of MONAI by the name of its class; raises BadInput if that or an argument is unknown."""
    if target not in NETWORKS:
        raise BadInput(f"{where}: the network is {target}; supported are MONAI's {', '.join(NETWORKS)}")
    return check({"name": target, "arguments": dict(arguments)}, MonaiNetwork, f"{where}: network_def")


def load_network(
    network: MonaiNetwork, tensors: Mapping[str, Tensor], where: str
) -> tuple[dict[str, nn.Module], TransferReport]:
    """Builds a network with the tensors of a checkpoint, which must fit one to one.

    Args:
        network: The network.
        tensors: The tensors by their names without wrappers.
        where: Name of the file, for error messages.

    Returns:
        The network as the part `PART`, and the status of each tensor.

    Raises:
        BadInput: If a tensor is missing, has another shape, or is not one of the network.
    """
    size, file_size = (
        sum(value.numel() for value in values)
        for values in (network.build("meta").state_dict().values(), tensors.values())
    )
    if size > file_size:
        raise BadInput(
            f"{where}: holds {file_size} values, network_def describes {size}; use the weights of this bundle"
        )
    module = network.build()
    names = dict(zip(module.state_dict(), strip_wrappers(module.state_dict()), strict=True))
    unknown = {f"{PART}.{name}": value for name, value in tensors.items() if name not in names.values()}
    renamed = {f"{PART}.{key}": tensors[name] for key, name in names.items() if name in tensors}
    named = {f"{PART}.{key}": name for key, name in names.items()}
    parts: dict[str, nn.Module] = {PART: module}
    return parts, load_named_tensors(parts, renamed | unknown, named, tensors, {}, where)


def _is_plain(value: Any, depth: int) -> bool:
    """Returns whether a value consists of words and numbers of a sensible size only."""
    if depth > MAX_DEPTH:
        return False
    match value:
        case None | bool():
            return True
        case int() | float():
            return math.isfinite(value) and abs(value) <= MAX_NUMBER
        case str():
            return bool(WORD.fullmatch(value))
        case list() | tuple():
            return len(value) <= MAX_ITEMS and all(_is_plain(item, depth + 1) for item in value)
        case dict():
            items = [*value.keys(), *value.values()]
            return "_target_" not in value and len(value) <= MAX_ITEMS and all(_is_plain(i, depth + 1) for i in items)
    return False
