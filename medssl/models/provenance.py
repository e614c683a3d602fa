"""Metadata in run.json that other projects need to use the weights: training data, licence, tensor names."""

import re
from pathlib import Path
from typing import Any

from medssl.data.checks.data_card import NOT_STATED
from medssl.files import sha256
from medssl.nn.encoder import Encoder
from medssl.nn.interop import state_dict_names

LICENCE = re.compile(r"^\*\*Licence\.\*\* (.+)$", re.MULTILINE)


def encoder_metadata(encoder: Encoder, objective: str, data: dict[str, Any]) -> dict[str, Any]:
    """Returns objective, training data, architecture and orientation of an encoder, and its upstream tensor names.

    Args:
        encoder: The encoder that was trained or imported.
        objective: The name of the pretraining objective, or `imported`.
        data: The training data: digests and licence.
    """
    return {
        "objective": objective,
        "data": data,
        "orientation": "RAS",
        "channels": encoder.channels,
        "strides": encoder.strides,
        "origin": encoder.upstream or None,
        "key_map": {
            f"encoder.{name}": upstream for name, upstream in state_dict_names.get_upstream_names(encoder).items()
        },
    }


def store_digests(store: Path) -> dict[str, Any]:
    """Returns the digests of store.json and of the data card of a store, and the licence that the card states."""
    card = store / "CARD.md"
    licence = LICENCE.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    return {
        "store_sha256": sha256(store / "store.json"),
        "card_sha256": sha256(card) if card.is_file() else None,
        "licence": licence[1] if licence else NOT_STATED,
    }
