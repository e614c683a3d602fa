"""Imports the encoder of a MONAI bundle without running any code of the bundle.

Only plain values that describe one of three networks of MONAI are accepted, and weights that consist of tensors only.
TorchScript is code and is not read. The format: https://docs.monai.io/en/stable/mb_specification.html.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt
from torch import Tensor

from medssl.config import check
from medssl.errors import BadInput
from medssl.nn.encoders import dynunet, segresnet, swinunetr
from medssl.nn.encoders.base import BaseEncoderConfig
from medssl.nn.executor import Triple
from medssl.nn.interop.bundle_config import BundleConfig
from medssl.nn.interop.checkpoint_file import read_checkpoint
from medssl.nn.interop.state_dict_names import ImportedEncoder, load_encoder
from medssl.nn.norms import MonaiNorm
from medssl.settings import Settings

WEIGHTS = Path("models/model.pt")
KEYS = ("network_def", "network")
DEFAULT_OPTIONS = {"num_groups": 8, "affine": True, "inplace": True, "negative_slope": 0.01}


def _parse_layer_name(value: Any) -> Any:
    """Returns the lower-case name of a layer, which MONAI writes as a name or as a pair of a name and options."""
    match value:
        case [str(name), dict(options)] if all(option == DEFAULT_OPTIONS.get(key) for key, option in options.items()):
            return name.lower()
        case str(name):
            return name.lower()
    raise ValueError(f"{value!r} is not supported; supported are a name, or a name with options of {DEFAULT_OPTIONS}")


Norm = Annotated[MonaiNorm, BeforeValidator(_parse_layer_name)]
Unused = Annotated[Any, Field(description="ignored: does not change the encoder")]


class MonaiNetworkConfig(Settings):
    """The arguments that the three networks of MONAI share; arguments of decoder and training accept any value."""

    spatial_dims: Literal[3] = Field(3, description="number of spatial axes")
    in_channels: PositiveInt = Field(1, description="channels of the input volume")
    out_channels: Unused = None

    def to_encoder_config(self) -> BaseEncoderConfig:
        """Returns the config of the medssl encoder that is equal to the encoder of this network."""
        raise NotImplementedError


class SegResNet(MonaiNetworkConfig):
    """The arguments of MONAI's SegResNet with their defaults."""

    init_filters: PositiveInt = Field(8, description="channels of the first level")
    blocks_down: tuple[PositiveInt, ...] = Field((1, 2, 2, 4), description="residual blocks of each level")
    norm: Norm = Field("group", description="normalisation layer")
    act: Annotated[Literal["relu"], BeforeValidator(_parse_layer_name)] = Field("relu", description="activation")
    blocks_up: Unused = None
    dropout_prob: Unused = None
    upsample_mode: Unused = None
    use_conv_final: Unused = None

    def to_encoder_config(self) -> BaseEncoderConfig:
        """Returns the config of the SegResNet encoder."""
        if self.norm == "group" and self.init_filters % 8:
            raise BadInput(
                f"init_filters {self.init_filters}: MONAI's group norm has eight groups; expected a multiple of 8"
            )
        return segresnet.Config(init_filters=self.init_filters, blocks_down=self.blocks_down, norm=self.norm)


class DynUNet(MonaiNetworkConfig):
    """The arguments of MONAI's DynUNet with their defaults."""

    kernel_size: tuple[int | Triple, ...] = Field(description="kernel of each level in voxels")
    strides: tuple[int | Triple, ...] = Field(description="stride of each level")
    filters: tuple[PositiveInt, ...] | None = Field(
        None, description="width of each level; null doubles from 32 up to 320"
    )
    norm_name: Annotated[Literal["instance", "batch"], BeforeValidator(_parse_layer_name)] = Field(
        "instance", description="normalisation layer"
    )
    act_name: Annotated[Literal["leakyrelu"], BeforeValidator(_parse_layer_name)] = Field(
        "leakyrelu", description="activation"
    )
    res_block: bool = Field(False, description="use residual blocks")
    upsample_kernel_size: Unused = None
    dropout: Unused = None
    deep_supervision: Unused = None
    deep_supr_num: Unused = None
    trans_bias: Unused = None

    def to_encoder_config(self) -> BaseEncoderConfig:
        """Returns the config of the DynUNet encoder."""
        channels = self.filters or tuple(min(2 ** (5 + n), 320) for n in range(len(self.strides)))
        kernels = () if all(kernel in (3, (3, 3, 3)) for kernel in self.kernel_size) else self.kernel_size
        values = {"channels": channels, "strides": self.strides, "norm": self.norm_name, "residual": self.res_block}
        values |= {"kernels": kernels}
        return check(values, dynunet.Config, "network_def")


class SwinUNETR(MonaiNetworkConfig):
    """The arguments of MONAI's SwinUNETR with their defaults."""

    feature_size: int = Field(24, description="width of the patch embedding")
    depths: tuple[int, ...] = Field((2, 2, 2, 2), description="transformer blocks of each stage")
    num_heads: tuple[int, ...] = Field((3, 6, 12, 24), description="attention heads of each stage")
    window_size: PositiveInt = Field(7, description="side of an attention window in tokens")
    norm_name: Annotated[Literal["instance"], BeforeValidator(_parse_layer_name)] = Field(
        "instance", description="normalisation layer of the convolution blocks"
    )
    normalize: Literal[True] = Field(True, description="normalise the output of each stage")
    use_v2: Literal[False] = Field(False, description="use SwinUNETR-V2")
    downsample: Literal["merging"] = Field("merging", description="how stages are downsampled")
    img_size: Unused = None
    use_checkpoint: Unused = None
    drop_rate: Unused = None
    attn_drop_rate: Unused = None
    dropout_path_rate: Unused = None

    def to_encoder_config(self) -> BaseEncoderConfig:
        """Returns the config of the SwinUNETR encoder."""
        values = self.model_dump(include={"feature_size", "depths", "num_heads", "window_size"})
        return check(values, swinunetr.Config, "network_def")


ENCODERS: Mapping[str, type[MonaiNetworkConfig]] = {
    network.__name__: network for network in (SegResNet, DynUNet, SwinUNETR)
}


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Reads the tensors of a bundle.

    Raises:
        BadInput: If the folder holds none, or anything but tensors.
    """
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"{folder}: no {WEIGHTS}; TorchScript (model.ts) is code and is not read")
    return read_checkpoint(folder / WEIGHTS).tensors


def import_encoder(config: BundleConfig, tensors: Mapping[str, Tensor]) -> ImportedEncoder:
    """Builds the encoder of a bundle's network with the weights of the bundle.

    Raises:
        BadInput: If no encoder here is equal to that of the network, or one of its tensors is missing.
    """
    target, arguments = read_network(config)
    where = f"{config.file}: network_def"
    if target not in ENCODERS:
        raise BadInput(f"{config.file}: the network is {target}; supported are MONAI's {', '.join(ENCODERS)}")
    network = check(arguments, ENCODERS[target], where)
    return load_encoder(network.to_encoder_config(), network.in_channels, tensors, where)


def read_network(config: BundleConfig) -> tuple[str, dict[str, Any]]:
    """Returns the class of a bundle's network, without the package if it is one of MONAI, and its arguments.

    Raises:
        BadInput: If the bundle states no network, or an argument is an expression.
    """
    key = next((key for key in KEYS if isinstance(config.look_up(key)[1], dict)), "")
    place, network = config.look_up(key) if key else ("", {})
    target = network.get("_target_")
    if not isinstance(target, str):
        raise BadInput(f"{config.file}: has no network with a _target_ under network_def")
    arguments = {str(name): config.get(f"{place}#{name}") for name in network if not str(name).startswith("_")}
    package, _, name = target.rpartition(".")
    return name if f"{package}.".startswith(("monai.networks.nets.", ".")) else target, arguments
