"""Self-supervised pretraining, few-label finetuning and review of 3D medical images. Research use only.

The names in `__all__` are the public interface; everything else in the package is private and may change. Importing
the package loads neither torch nor numpy; each name is imported when it is first used.

Example:
    >>> import medssl
    >>> series = medssl.read_dicom("scans/ct")                                   # doctest: +SKIP
    >>> store = medssl.ingest("scans", "store")                                  # doctest: +SKIP
    >>> run = medssl.pretrain(store, "runs/a", objective="spark")                # doctest: +SKIP
    >>> run = medssl.finetune(store, "runs/b", pretrained=run, num_labelled=4)   # doctest: +SKIP
    >>> result = medssl.load_model("runs/b").predict(series[0].volume())         # doctest: +SKIP
    >>> features = medssl.load_encoder("runs/a")(series[0].volume())             # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medssl.version import __version__

if TYPE_CHECKING:
    from medssl.api import (
        Encoding,
        Model,
        SeriesList,
        finetune,
        ingest,
        load_encoder,
        load_model,
        pretrain,
        read_dicom,
        read_image,
    )
    from medssl.data.manifest import Manifest
    from medssl.errors import BadInput, InputWarning
    from medssl.run import Run
    from medssl.volume import Volume

__all__ = [
    "BadInput", "Encoding", "InputWarning", "Manifest", "Model", "Run", "SeriesList", "Volume", "__version__",
    "finetune", "ingest", "load_encoder", "load_model", "pretrain", "read_dicom", "read_image",
]  # fmt: skip

_MODULES = {
    "BadInput": "medssl.errors", "InputWarning": "medssl.errors", "Manifest": "medssl.data.manifest",
    "Run": "medssl.run", "Volume": "medssl.volume",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'medssl' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(import_module(_MODULES.get(name, "medssl.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
