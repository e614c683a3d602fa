"""Measures a store: grids, intensities, classes and labels, from which a training is planned."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from medssl.data.class_kinds import propose_kinds
from medssl.data.classes import Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import body_mask, subsample
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.finding import FindingKind
from medssl.volume import Spacing, Volume

MAX_SAMPLES = 12  # volumes, and labels, whose voxels are read
INTENSITY_PERCENTILES = (0.5, 50.0, 99.5)


@dataclass(frozen=True)
class ClassSize:
    """The size of a class in the labels that were read.

    Attributes:
        kind: Organ or lesion.
        cases: Number of labels that hold the class.
        volume_ml: Median volume in these labels.
        diameter_mm: Median diameter of a sphere of the volume of a connected component.
    """

    name: str
    kind: FindingKind
    cases: int
    volume_ml: float
    diameter_mm: float


@dataclass(frozen=True)
class DatasetFingerprint:
    """What a store holds, as far as a plan depends on it.

    The fingerprint of nnU-Net, Isensee et al. (2021), https://doi.org/10.1038/s41592-020-01008-z, with labels by split,
    sizes of classes and the fraction of body.

    Attributes:
        manifest: The cases of the store.
        spacing_mm: Voxel spacing of the store along i, j, k; the median where each volume keeps its own.
        has_one_spacing: Whether all volumes of the store share `spacing_mm`.
        scan_spacings_mm: Spacing of a sample of the original scans, in the axis order of the store.
        scan_shapes: Voxels of the same scans along the same axes.
        intensities: Percentiles 0.5, 50 and 99.5 of the stored values of the body, by modality.
        body_fraction: Median fraction of a volume that is body.
        classes: Size of each class; empty without labels.
        has_left_right_pairs: Whether a mirror may exchange left and right: each sided class has its counterpart.
    """

    manifest: Manifest
    spacing_mm: Spacing
    has_one_spacing: bool
    scan_spacings_mm: tuple[Spacing, ...]
    scan_shapes: tuple[tuple[int, int, int], ...]
    intensities: dict[str, tuple[float, ...]]
    body_fraction: float
    classes: tuple[ClassSize, ...]
    has_left_right_pairs: bool

    @classmethod
    def measure(cls, manifest: Manifest) -> "DatasetFingerprint":
        """Measures a store; the voxels of at most MAX_SAMPLES volumes and of as many labels are read.

        Raises:
            BadInput: The store has no case in split train.
        """
        train = manifest.in_split("train")
        if not train.cases:
            raise BadInput(
                f"{manifest.folder / 'manifest.csv'}: no case in split 'train'; ingest with --split-fractions train=..."
            )
        metadata, store = StoreMetadata.read(manifest.folder), Store(manifest)
        sample = _spread(train.cases)
        scans = [_original_grid(store, case) for case in sample]
        intensities, body_fraction = _measure_bodies(store, sample)
        classes = Classes.from_metadata(metadata)
        return cls(
            manifest=manifest,
            spacing_mm=metadata.spacing_mm or _median_spacing([case.spacing_mm for case in train.cases]),
            has_one_spacing=metadata.spacing_mm is not None,
            scan_spacings_mm=tuple(spacing for spacing, _ in scans),
            scan_shapes=tuple(shape for _, shape in scans),
            intensities=intensities,
            body_fraction=body_fraction,
            classes=tuple(_measure_classes(store, train, classes, metadata)),
            has_left_right_pairs=bool(classes.names) and bool(classes.find_left_right_pairs()),
        )

    @cached_property
    def shapes(self) -> Float[np.ndarray, "n 3"]:
        """Voxels of the volumes of split train along i, j, k."""
        return np.array([case.shape for case in self.train.cases], float)

    @cached_property
    def train(self) -> Manifest:
        """The cases of split train."""
        return self.manifest.in_split("train")

    @property
    def median_shape(self) -> tuple[float, float, float]:
        """Median number of voxels along i, j, k."""
        i, j, k = np.median(self.shapes, axis=0).tolist()
        return i, j, k

    @property
    def num_labelled(self) -> int:
        """Number of labelled volumes in split train."""
        return len(self.train.with_labels().cases)

    @property
    def modalities(self) -> dict[str, int]:
        """Number of volumes in split train by modality, the most frequent first."""
        return dict(Counter(case.modality or "unknown" for case in self.train.cases).most_common())

    def labels_by_split(self) -> dict[str, tuple[int, int]]:
        """Returns the number of volumes and of labelled volumes in each split."""
        splits = Counter(case.split for case in self.manifest.cases)
        labelled = Counter(case.split for case in self.manifest.cases if case.label)
        return {name: (splits[name], labelled[name]) for name in sorted(splits)}

    def describe(self) -> list[str]:
        """Returns the fingerprint as lines of text."""
        low, high = self.shapes.min(0).astype(int), self.shapes.max(0).astype(int)
        splits = ", ".join(
            f"{name} {n} ({labelled} labelled)" for name, (n, labelled) in self.labels_by_split().items()
        )
        grid = "" if self.has_one_spacing else " (the median; each volume keeps its own)"
        lines = [
            f"volumes: {splits}; {', '.join(f'{n} {name}' for name, n in self.modalities.items())} in train",
            f"grid: {format_triple(self.spacing_mm)} mm{grid}; {format_triple(self.median_shape)} voxels in the median,"
            f" from {format_triple(low.tolist())} to {format_triple(high.tolist())}",
            f"body: {self.body_fraction:.0%} of a volume",
        ]
        for modality, values in self.intensities.items():
            lines.append(
                f"stored values of the body, {modality}: {', '.join(f'{v:.4g}' for v in values)} (0.5, 50, 99.5 %)"
            )
        for size in self.classes:
            parts = f", {size.diameter_mm:.0f} mm a component" if size.kind == "lesion" else ""
            volume = f"{size.volume_ml:,.{0 if size.volume_ml >= 10 else 2}f} ml"
            lines.append(f"class {size.name} ({size.kind}): {volume}{parts}, in {size.cases} labels")
        return lines


def format_triple(values: Sequence[float]) -> str:
    """Returns three numbers as text, such as `1 x 1 x 2.5`."""
    return " x ".join(f"{value:g}" for value in values)


def _spread(cases: Sequence[Case]) -> list[Case]:
    """Returns at most MAX_SAMPLES cases, evenly spread."""
    return list(cases[:: max(1, -(-len(cases) // MAX_SAMPLES))])


def _median_spacing(spacings: Sequence[Spacing]) -> Spacing:
    i, j, k = (round(float(value), 3) for value in np.median(spacings, axis=0))
    return i, j, k


def _original_grid(store: Store, case: Case) -> tuple[Spacing, tuple[int, int, int]]:
    """Returns spacing and shape of the scan that a volume was made from, or its own, in the axis order of the store."""
    provenance = store.image(case).provenance()
    if not {"shape", "affine"} <= provenance.keys():
        return case.spacing_mm, case.shape
    shape = tuple(provenance["shape"])[-3:]
    # One value that is repeated without memory, because only the grid matters.
    grid = Volume(np.broadcast_to(np.uint8(0), shape), np.array(provenance["affine"], float), "a.u.").reorient("RAS")
    return grid.spacing_mm(), grid.shape


def _measure_bodies(store: Store, cases: Sequence[Case]) -> tuple[dict[str, tuple[float, ...]], float]:
    """Returns percentiles of the body by modality, and the median fraction of body."""
    samples: dict[str, list[Float[np.ndarray, n]]] = {}
    fractions = []
    for case in cases:
        image = store.image(case)
        voxels = subsample(image.array[:].reshape(-1, *image.shape)[0])
        body = body_mask(voxels, image.unit)
        fractions.append(float(body.mean()))
        samples.setdefault(case.modality or "unknown", []).append(voxels[body].astype(np.float64))
    return {
        name: tuple(float(v) for v in np.percentile(np.concatenate(values), INTENSITY_PERCENTILES))
        for name, values in samples.items()
    }, float(np.median(fractions))


def _measure_classes(store: Store, train: Manifest, classes: Classes, metadata: StoreMetadata) -> list[ClassSize]:
    """Measures volume and components of each class in a sample of the labels."""
    volumes: dict[int, list[float]] = {value: [] for value in classes.names}
    diameters: dict[int, list[float]] = {value: [] for value in classes.names}
    kinds = propose_kinds(classes.names) | metadata.kinds
    for case in _spread(train.with_labels().cases):
        label = store.label(case)
        voxel_ml = float(np.prod(case.spacing_mm)) / 1000
        voxels = label.array[:]
        for value in classes.names:
            if count := int(np.count_nonzero(voxels == value)):
                volumes[value].append(count * voxel_ml)
                parts = sum(1 for component, _ in label.components if component == value)
                diameters[value].append(2 * (3000 * count * voxel_ml / max(1, parts) / (4 * np.pi)) ** (1 / 3))
    return [
        ClassSize(
            name,
            kinds[value],
            len(volumes[value]),
            float(np.median(volumes[value])),
            float(np.median(diameters[value])),
        )
        for value, name in classes.names.items()
        if volumes[value]
    ]
