"""The properties of a whole store: normalization, spacing, classes and how its patients were split."""

import json
from pathlib import Path

from pydantic import Field

from medssl import config
from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.files import write_json
from medssl.finding import FindingKind
from medssl.settings import Settings
from medssl.version import __version__
from medssl.volume import Spacing

STORE_VERSION = 1  # a store of a higher version is refused


class StoreMetadata(Settings):
    """Properties of a whole store, written to store.json."""

    version: int = Field(STORE_VERSION, description="version of the form of the store", ge=1, le=STORE_VERSION)
    normalization: IntensityNormalization = Field(
        IntensityNormalization(), description="how scanner values become network input"
    )
    spacing_mm: Spacing | None = Field(
        None, description="voxel spacing of every volume in mm; null: each keeps its own"
    )
    labels: dict[int, str] = Field(default_factory=dict, description="class name of each label value")
    kinds: dict[int, FindingKind] = Field(
        default_factory=dict,
        description="kind of each label value: organ (one item with all its fragments) or lesion (one finding for each "
        "connected component)",
    )
    present_labels: dict[str, list[int]] = Field(
        default_factory=dict, description="label values annotated in a case; a case without an entry is fully annotated"
    )
    regions: dict[str, list[int]] = Field({}, description="label values that together form a named region")
    split_fractions: dict[str, float] = Field(
        {}, description="fraction of all patients in each split; empty: the default of `medssl ingest`"
    )
    seed: int = Field(0, description="seed of the split")
    key_fingerprint: str = Field(
        "", description="fingerprint of the pseudonymization key; empty without de-identification"
    )

    def write(self, folder: Path) -> None:
        """Writes FOLDER/store.json."""
        write_json(folder / "store.json", self.model_dump(mode="json"))

    @classmethod
    def read(cls, folder: Path) -> "StoreMetadata":
        """Reads FOLDER/store.json."""
        path = folder / "store.json"
        if not path.is_file():
            raise BadInput(
                f"{folder}: no store (store.json is missing); `medssl ingest SCANS --out {folder}` creates one"
            )
        try:
            values = json.loads(path.read_text())
            version = values.get("version", STORE_VERSION) if isinstance(values, dict) else STORE_VERSION
            if isinstance(version, int) and version > STORE_VERSION:
                raise BadInput(
                    f"{path}: is a store of version {version}, medssl {__version__} reads up to version "
                    f"{STORE_VERSION}; install a newer medssl, or ingest the scans again"
                )
            return config.check(values, cls, str(path))
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}: not JSON ({error}); ingest again into a new folder") from None
