"""Metadata in run.json that other projects need to use the weights: training data, licence, tensor names."""

import re
from pathlib import Path
from typing import Any

from medssl.data.checks.data_card import NOT_STATED
from medssl.files import sha256
from medssl.nn.encoder import Encoder
from medssl.nn.interop import state_dict_names
from medssl.run import Run

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


def list_weight_licences(run: Run | None) -> list[dict[str, Any]]:
    """Returns file, hash and licence of the imported weights that a run holds or started from; empty if there are none.

    Args:
        run: A run; None for a training from fresh weights.
    """
    if run is None:
        return []
    if run.metadata["kind"] == "import":
        return [{key: run.metadata["data"][key] for key in ("file", "sha256", "licence")}]
    licences: list[dict[str, Any]] = run.metadata.get("start_licences", [])
    return licences
