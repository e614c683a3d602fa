"""Reads checkpoints of other projects: their tensors under plain names, and the other plain values.

Nothing is unpickled but tensors and plain values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.interop.weight_transfer import read_tensors

# Trainers log numpy scalars; the name of the function that builds them changed in numpy 2.
BUILD_SCALAR: Any = np.float64(0).__reduce__()[0]
SCALAR_TYPES: list[Any] = [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType, np.dtypes.BoolDType]
SAFE_GLOBALS = [
    np.dtype,
    *SCALAR_TYPES,
    (BUILD_SCALAR, "numpy.core.multiarray.scalar"),
    (BUILD_SCALAR, "numpy._core.multiarray.scalar"),
]
# Keys under which projects store their tensors: nnU-Net, Lightning and MONAI, SuPreM, VoCo and many others.
STATE_DICT_KEYS = ("network_weights", "state_dict", "net", "model", "student")
# Parts of names that wrappers add: data parallel, torch.compile, and the modules around a backbone.
WRAPPERS = ("module.", "_orig_mod.", "student.", "backbone.", "net.", "model.")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint of another project.

    Attributes:
        tensors: The tensors by their names without wrappers.
        values: Everything else at the top level of the file, such as plans.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a checkpoint of torch or a safetensors file.

    Raises:
        BadInput: If the file is missing or holds objects other than tensors and plain values.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return Checkpoint(read_tensors(path))
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        message = str(error).partition("\n")[0]
        raise BadInput(
            f"{path}: holds objects other than tensors, or is damaged ({message}); save its state dict as safetensors"
        ) from None
    values = content if isinstance(content, dict) else {}
    return Checkpoint(strip_wrappers(_find_state_dict(values)), {k: v for k, v in values.items() if not _is_state(v)})


def strip_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the parts of tensor names that wrappers add; a name that is taken already keeps its wrappers."""
    stripped: dict[str, Tensor] = {}
    for name, value in tensors.items():
        plain = name
        while wrapper := next((w for w in WRAPPERS if plain.startswith(w)), ""):
            plain = plain.removeprefix(wrapper)
        stripped[name if plain in stripped else plain] = value
    return stripped


def _find_state_dict(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the tensors of a file, which lie at its top level or under a known key."""
    while key := next((key for key in STATE_DICT_KEYS if _is_state(values.get(key))), ""):
        values = values[key]
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _is_state(value: Any) -> bool:
    """Returns whether a value holds tensors, directly or one level below."""
    if not isinstance(value, dict):
        return isinstance(value, Tensor)
    return any(isinstance(v, Tensor) or (isinstance(v, dict) and _is_state(v)) for v in value.values())
