"""The door to the encoders: what each of them promises, and the one that a run chooses by name."""

from medssl import config
from medssl.nn.encoders.base import Choice, Encoder, cells, triples
from medssl.nn.encoders.residual import Config as EncoderConfig
from medssl.nn.encoders.residual import ResEncoder

__all__ = ["Choice", "Encoder", "EncoderConfig", "Named", "ResEncoder", "build", "cells", "triples"]

Named = config.named("medssl.nn.encoders", default="residual")


def build(choice: Choice, in_channels: int) -> Encoder:
    """The encoder a config describes."""
    return choice.build(in_channels)
