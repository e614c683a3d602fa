"""The door to the encoders: what each of them promises, and the one that a run chooses by name."""

import json

from medssl import config
from medssl.nn.encoders.base import Choice, Encoder, cells, triples
from medssl.nn.encoders.residual import Config as EncoderConfig
from medssl.nn.encoders.residual import ResEncoder

__all__ = ["Choice", "Encoder", "EncoderConfig", "Named", "ResEncoder", "build", "cells", "triples", "words"]

Named = config.named("medssl.nn.encoders", default="residual")


def build(choice: Choice, in_channels: int) -> Encoder:
    """The encoder a config describes."""
    return choice.build(in_channels)


def words(choice: Choice) -> str:
    """A choice of an encoder as `encoder.key=value` on a command line."""
    changed = {"name": choice.name} | choice.model_dump(mode="json", exclude_defaults=True)
    plain = {key: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for key, v in changed.items()}
    return " ".join(f"encoder.{key}={value}" for key, value in plain.items())
