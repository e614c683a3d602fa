"""Decides the metadata of a store from the options of an ingestion, its layout and what the store has already."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from medssl.data import normalization_fit, store
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.layouts.dataset_layout import DatasetLayout
from medssl.data.ingest.read_source import read_image
from medssl.data.ingest.source import Source
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.selection.splits import DEFAULT_SPLIT_FRACTIONS
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.volume import Spacing

log = logging.getLogger(__name__)
MAX_SPACING_SAMPLES = 32  # cases whose spacing is read for the median


def update_metadata(out: Path, layout: DatasetLayout, key_fingerprint: str, config: IngestConfig) -> StoreMetadata:
    """Returns the metadata of the store with the classes of the layout.

    A new store gets the metadata that the config asks for.

    Raises:
        BadInput: The config or the layout contradicts an existing store.
    """
    hu_channels = _find_hu_channels(layout.sources, config)
    if not (out / "store.json").exists():
        StoreMetadata(
            normalization=_choose_normalization(config, IntensityNormalization(hu_channels=hu_channels)),
            spacing_mm=_choose_spacing(layout.sources, config.spacing_mm),
            split_fractions=config.split_fractions or {},
            seed=config.seed or 0,
            key_fingerprint=key_fingerprint,
        ).write(out)
    stored = StoreMetadata.read(out)
    fractions = stored.split_fractions if config.split_fractions is None else config.split_fractions
    seed = stored.seed if config.seed is None else config.seed
    if (fractions, seed) != (stored.split_fractions, stored.seed) and not config.resplit:
        used = f"fractions {stored.split_fractions or DEFAULT_SPLIT_FRACTIONS} and seed {stored.seed}"
        raise BadInput(f"{out}: was split with {used}; use --resplit to split it again, or another --out to keep both")
    normalization = _choose_normalization(config, stored.normalization)
    spacing_mm = {"auto": stored.spacing_mm, "native": None}.get(str(config.spacing_mm), config.spacing_mm)
    for name, current, requested in (
        ("spacing in mm", stored.spacing_mm, spacing_mm),
        ("window in HU", stored.normalization.window_hu, normalization.window_hu),
        ("normalization", stored.normalization, normalization),
        ("list of CT channels", stored.normalization.hu_channels, hu_channels or stored.normalization.hu_channels),
        ("classes", stored.labels | layout.labels, layout.labels | stored.labels),
        ("regions", stored.regions | layout.regions, layout.regions | stored.regions),
    ):
        if current != requested:
            raise BadInput(f"{out}: {name}: the store has {current}, requested: {requested}; use another --out")
    return stored.model_copy(
        update={
            "labels": stored.labels | layout.labels,
            "present_labels": stored.present_labels | layout.present_labels,
            "regions": stored.regions | layout.regions,
            "split_fractions": fractions,
            "seed": seed,
        }
    )


def _choose_normalization(config: IngestConfig, default: IntensityNormalization) -> IntensityNormalization:
    """Returns the requested normalization; `auto` values are fitted later, when the scans are prepared."""
    if isinstance(config.normalization, Path):
        return normalization_fit.load_normalization(config.normalization)
    window = {"window_hu": config.window_hu} if isinstance(config.window_hu, tuple) else {}
    return default.model_copy(update=window)


def fit_normalization(
    manifest: Manifest, normalization: IntensityNormalization, config: IngestConfig
) -> IntensityNormalization:
    """Returns the normalization of a new store, fitted to its scans if that is requested."""
    if config.normalization == "auto":
        return normalization_fit.fit_normalization(manifest, normalization)
    if config.window_hu == "auto":
        return normalization_fit.fit_window(manifest, normalization)
    return normalization


def _find_hu_channels(sources: Sequence[Source], config: IngestConfig) -> tuple[int, ...]:
    """Returns which channels are CT in cases of mixed channels; all such cases must have the same channels."""
    combinations = {s.modalities for s in sources if len(set(s.modalities)) > 1}
    if len(combinations) > 1:
        raise BadInput(f"cases with channels {sorted(combinations)}; ingest each combination into a separate store")
    hu_channels = tuple(i for names in combinations for i, modality in enumerate(names) if modality == "CT")
    if config.window_hu == "auto" and hu_channels:
        raise BadInput("--window-hu auto: a CT among other channels is windowed when it is prepared; give LOW,HIGH")
    return hu_channels


def _choose_spacing(sources: Sequence[Source], requested: str | Spacing) -> Spacing | None:
    """Returns the spacing of a new store; `auto` is the median along each axis of a sample of its cases."""
    if not isinstance(requested, str):
        return requested
    if requested == "native":
        return None
    spacings: list[Spacing] = []
    for source in sources[:: -(-len(sources) // MAX_SPACING_SAMPLES)]:
        with suppress(Exception), warnings.catch_warnings(action="ignore"):  # reported when the case is prepared
            spacings.append(read_image(source)[0].reorient("RAS").spacing_mm())
    if not spacings:
        return None
    i, j, k = (round(float(v), 3) for v in np.median(spacings, axis=0))
    return i, j, k


def name_classes(metadata: StoreMetadata, sources: Sequence[Source], cases: Sequence[Case], out: Path) -> StoreMetadata:
    """Returns the metadata with a name for each label value that no description names: class_1, class_2, ..."""
    unnamed = {s.id for s in sources if not s.classes and s.instances is None}
    labels = [case.label for case in cases if case.label and case.id in unnamed]
    values = {int(value) for label in labels for value in store.read(out / label).sample_points}
    names = {value: f"class_{value}" for value in sorted(values - set(metadata.labels))}
    if names:
        log.warning(
            "the label values %s have no names: their classes are %s; a dataset.json beside the scans can name them",
            ", ".join(map(str, names)), ", ".join(names.values()),
        )  # fmt: skip
    return metadata.model_copy(update={"labels": metadata.labels | names})
