"""Contract: what run.json says beside the network, for its weights to be used elsewhere."""

import re
from pathlib import Path
from typing import Any

from medssl.data.checks.data_card import UNTOLD
from medssl.files import sha256
from medssl.nn.encoder import Encoder
from medssl.nn.interop import state_dict_names as keymap

LICENCE = re.compile(r"^\*\*Licence\.\*\* (.+)$", re.MULTILINE)


def contract(encoder: Encoder, objective: str, data: dict[str, Any]) -> dict[str, Any]:
    """Who taught the encoder and on what, its shape, how scans lie, and the names its tensors have elsewhere."""
    return {
        "objective": objective,
        "data": data,
        "orientation": "RAS",
        "channels": encoder.channels,
        "strides": encoder.strides,
        "origin": encoder.origin or None,
        "key_map": {f"encoder.{ours}": theirs for ours, theirs in keymap.names(encoder).items()},
    }


def data_of(store: Path) -> dict[str, Any]:
    """The digests of a store's description and of its data card, and the licence that the card tells of."""
    card = store / "CARD.md"
    found = LICENCE.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    return {
        "store_sha256": sha256(store / "store.json"),
        "card_sha256": sha256(card) if card.is_file() else None,
        "licence": found[1] if found else UNTOLD,
    }
