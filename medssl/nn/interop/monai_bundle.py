"""Bundle: the encoder of a MONAI bundle, from what its configuration says of the network; nothing of it is run.

MONAI's own reader evaluates expressions (`$...`) and calls whatever `_target_` names. Here a configuration is plain
values about one of three networks of MONAI, and weights are tensors alone; TorchScript, which is code, is not read.
The format: https://docs.monai.io/en/stable/mb_specification.html.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, PositiveInt

from medssl import config
from medssl.errors import BadInput
from medssl.nn.encoders import dynunet, segresnet, swinunetr
from medssl.nn.encoders.base import Choice
from medssl.nn.executor import Triple
from medssl.nn.interop import state_dict_names as keymap
from medssl.nn.interop.state_dict_names import Adopted
from medssl.nn.norms import MonaiNorm
from medssl.settings import Settings

WEIGHTS = Path("models/model.pt")
CONFIGS = [Path("configs") / f"{name}.{kind}" for name in ("inference", "train") for kind in ("json", "yaml", "yml")]
KEYS = ("network_def", "network")
USUAL = {"num_groups": 8, "affine": True, "inplace": True, "negative_slope": 0.01}


def _plain(told: Any) -> Any:
    """The name alone of a layer that MONAI lets be a name, or a name with options, in small letters."""
    match told:
        case [str(name), dict(options)] if all(value == USUAL.get(key) for key, value in options.items()):
            return name.lower()
        case str(name):
            return name.lower()
    raise ValueError(f"{told!r} is not built here; a name with nothing but {USUAL} is")


Norm = Annotated[MonaiNorm, BeforeValidator(_plain)]


class Bundled(Settings):
    """What all three networks are told; of the way up, and of training, anything may be said."""

    spatial_dims: Literal[3] = 3
    in_channels: PositiveInt = 1
    out_channels: Any = None

    def choice(self) -> Choice:
        """The encoder of ours that this network begins with."""
        raise NotImplementedError


class SegResNet(Bundled):
    """MONAI's SegResNet, with its defaults."""

    init_filters: PositiveInt = 8
    blocks_down: tuple[PositiveInt, ...] = (1, 2, 2, 4)
    norm: Norm = "group"
    act: Annotated[Literal["relu"], BeforeValidator(_plain)] = "relu"
    blocks_up: Any = None
    dropout_prob: Any = None
    upsample_mode: Any = None
    use_conv_final: Any = None

    def choice(self) -> Choice:
        """The encoder of ours that this network begins with."""
        if self.norm == "group" and self.init_filters % 8:
            raise BadInput(f"init_filters {self.init_filters}: a group norm has eight groups in MONAI")
        return segresnet.Config(init_filters=self.init_filters, blocks_down=self.blocks_down, norm=self.norm)


class DynUNet(Bundled):
    """MONAI's DynUNet, with its defaults."""

    kernel_size: tuple[Literal[3] | tuple[Literal[3], Literal[3], Literal[3]], ...]
    strides: tuple[int | Triple, ...]
    filters: tuple[PositiveInt, ...] | None = None
    norm_name: Annotated[Literal["instance", "batch"], BeforeValidator(_plain)] = "instance"
    act_name: Annotated[Literal["leakyrelu"], BeforeValidator(_plain)] = "leakyrelu"
    res_block: bool = False
    upsample_kernel_size: Any = None
    dropout: Any = None
    deep_supervision: Any = None
    deep_supr_num: Any = None
    trans_bias: Any = None

    def choice(self) -> Choice:
        """The encoder of ours that this network begins with."""
        channels = self.filters or tuple(min(2 ** (5 + n), 320) for n in range(len(self.strides)))
        told = {"channels": channels, "strides": self.strides, "norm": self.norm_name, "residual": self.res_block}
        return config.check(told, dynunet.Config, "network_def")


class SwinUNETR(Bundled):
    """MONAI's SwinUNETR, with its defaults."""

    feature_size: int = 24
    depths: tuple[int, ...] = (2, 2, 2, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: PositiveInt = 7
    norm_name: Annotated[Literal["instance"], BeforeValidator(_plain)] = "instance"
    normalize: Literal[True] = True
    use_v2: Literal[False] = False
    downsample: Literal["merging"] = "merging"
    img_size: Any = None
    use_checkpoint: Any = None
    drop_rate: Any = None
    attn_drop_rate: Any = None
    dropout_path_rate: Any = None

    def choice(self) -> Choice:
        """The encoder of ours that this network begins with."""
        told = self.model_dump(include={"feature_size", "depths", "num_heads", "window_size"})
        return config.check(told, swinunetr.Config, "network_def")


NETWORKS: Mapping[str, type[Bundled]] = {one.__name__: one for one in (SegResNet, DynUNet, SwinUNETR)}


def adopt(folder: Path) -> Adopted:
    """The encoder of a bundle's network with the bundle's weights; refused where a tensor of it is not there."""
    network = described(folder)
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{folder}: no {WEIGHTS}; TorchScript (model.ts) is code, and is not read")
    return keymap.filled(network.choice(), network.in_channels, keymap.read(folder / WEIGHTS), str(folder / WEIGHTS))


def described(folder: Path) -> Bundled:
    """What a bundle's configuration says of its network."""
    place = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if place is None:
        raise BadInput(f"{folder}: no MONAI bundle (configs/inference.json is missing)")
    try:
        told = yaml.safe_load(place.read_text(encoding="utf-8"))
        network = next(told[key] for key in KEYS if isinstance(told.get(key), dict))
        values = {key: _value(value, told) for key, value in network.items() if not key.startswith("_")}
        target = str(network["_target_"])
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, KeyError, StopIteration):
        raise BadInput(f"{place}: tells of no network under network_def") from None
    package, _, name = target.rpartition(".")
    if name not in NETWORKS or not f"{package}.".startswith(("monai.networks.nets.", ".")):
        raise BadInput(f"{place}: its network is {target}; encoders are taken of MONAI's {', '.join(NETWORKS)}")
    return config.check(values, NETWORKS[name], f"{place}: network_def")


def _value(value: Any, told: Mapping[str, Any]) -> Any:
    """A plain value, or what `@name` at the top of the configuration is; expressions stay words, which no number is."""
    return told.get(value[1:], value) if isinstance(value, str) and value.startswith("@") else value
