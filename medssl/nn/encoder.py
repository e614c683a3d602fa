"""The public interface of the encoders: the base class, the config that selects one by name, and its builder."""

import json
from typing import TYPE_CHECKING

from medssl.config import module_choice
from medssl.nn.encoders.base import BaseEncoderConfig, Encoder, as_triples, count_patches, expand_kernels
from medssl.nn.encoders.residual import Config as EncoderConfig
from medssl.nn.encoders.residual import ResEncoder

__all__ = [
    "BaseEncoderConfig",
    "Encoder",
    "EncoderChoice",
    "EncoderConfig",
    "ResEncoder",
    "as_command_line",
    "as_triples",
    "build_encoder",
    "count_patches",
    "expand_kernels",
]

if TYPE_CHECKING:
    EncoderChoice = BaseEncoderConfig  # what a checker of types sees of the choice
else:
    EncoderChoice = module_choice("medssl.nn.encoders", default="residual")


def build_encoder(config: BaseEncoderConfig, in_channels: int) -> Encoder:
    """Builds an encoder with fresh weights.

    Args:
        config: The config of the encoder.
        in_channels: Number of channels of the input volume.
    """
    return config.build(in_channels)


def as_command_line(config: BaseEncoderConfig) -> str:
    """Formats the settings that differ from the defaults as `encoder.key=value` arguments of a command line."""
    values = {"name": config.name} | config.model_dump(mode="json", exclude_defaults=True)
    texts = {key: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for key, v in values.items()}
    return " ".join(f"encoder.{key}={text}" for key, text in texts.items())
