"""The labels that a pretraining learns from: of labelled volumes, propagated over an atlas, or maps without images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from medssl.data.classes import Classes
from medssl.data.label_maps import write_label_map_store
from medssl.data.manifest import Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.selection.case_groups import LabelDomain
from medssl.models.trained_model import TrainedModel
from medssl.settings import Settings
from medssl.training.label_subset import LabelSubset
from medssl.training.semi_supervised.label_propagation import LabelPropagation


class LabelSource(Settings):
    """Where a pretraining takes labels from; the name of a source alone stands for its defaults.

    `labelled`: the labelled volumes of split train, as a finetuning with the same `seed` and number selects them.
    `propagated`: the other volumes of split train, with labels that an atlas transfers from the labelled ones.
    `maps`: a folder of label maps; the volumes of the store give their spacing and channels alone.
    """

    source: Literal["none", "labelled", "propagated", "maps"] = Field(
        "none", description="where labels come from: the labelled volumes, their propagation, or a folder of maps"
    )
    num_labelled: PositiveInt | None = Field(
        None, description="labelled, propagated: number of labelled volumes to use; null uses all"
    )
    domain: LabelDomain = Field(
        LabelDomain(), description="labelled, propagated: part of the store whose labels are used"
    )
    atlas: Path | None = Field(None, description="propagated: the folder that `medssl atlas` wrote for these volumes")
    folder: Path | None = Field(None, description="maps: folder of label maps in NIfTI, without images")
    structures: tuple[tuple[PositiveInt, ...], ...] = Field(
        (), description="maps: groups of label values, each a class that crops are placed around: [[17, 53], [18, 54]]"
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_source_name(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_source(self) -> "LabelSource":
        needed: dict[str, tuple[str, ...]] = {"propagated": ("atlas",), "maps": ("folder", "structures")}
        subset = ("num_labelled", "domain")
        allowed = {"labelled": subset, "propagated": (*subset, "atlas"), "maps": needed["maps"]}
        for key in (*subset, "atlas", "folder", "structures"):
            is_given = getattr(self, key) != type(self).model_fields[key].default
            if key in needed.get(self.source, ()) and not is_given:
                raise ValueError(f"source={self.source} needs {key}; give labels.{key}")
            if is_given and key not in allowed.get(self.source, ()):
                raise ValueError(f"{key} has no use with source={self.source}; leave it out, or choose another source")
        values = [value for group in self.structures for value in group]
        if len(set(values)) < len(values) or not all(self.structures):
            raise ValueError("structures: every group needs a value, and no value may stand in two groups")
        return self

    @property
    def depends_on_subset(self) -> bool:
        """Whether the labels depend on which volumes are labelled."""
        return self.source in ("labelled", "propagated")


@dataclass(frozen=True)
class LabelPool:
    """The volumes that crops of a pretraining are cut from.

    Attributes:
        manifest: Cases to cut crops from.
        classes: Classes of their labels; None to use them without labels.
        normalization: Maps their voxels to network input.
    """

    manifest: Manifest
    classes: Classes | None
    normalization: IntensityNormalization


@dataclass(frozen=True)
class LabelPlan:
    """The labels of a pretraining before its run begins.

    Attributes:
        training_cases: Cases that the training learns from, for later leakage checks.
        num_classes: Number of classes, with background; None without labels.
        open_pool: Returns the volumes, and may write a store into a folder.
    """

    training_cases: Manifest
    num_classes: int | None
    open_pool: Callable[[Path], LabelPool]


def plan_labels(source: LabelSource, manifest: Manifest, cases: Manifest, spec: TrainedModel, seed: int) -> LabelPlan:
    """Selects the cases and counts the classes of a source.

    Args:
        source: Where labels come from.
        manifest: All cases of the store, of all splits.
        cases: The cases of the pretraining.
        spec: Channels, spacing, normalization and patch size of the training.
        seed: Seed of the selection of labelled volumes.

    Raises:
        BadInput: There are too few labelled cases, or the atlas does not fit them.
    """
    if source.source == "none":
        return LabelPlan(cases, None, lambda folder: LabelPool(cases, None, spec.normalization))
    if source.folder:
        return _plan_maps(source, source.folder, cases, spec)
    subset = LabelSubset.select(manifest, source.num_labelled, seed, domain=source.domain)
    if source.atlas is None:
        labelled = LabelPool(subset.labelled, subset.classes, spec.normalization)
        return LabelPlan(subset.labelled, subset.classes.count, lambda folder: labelled)
    propagation = LabelPropagation(source.atlas, subset.labelled, subset.unlabelled)

    def propagate(folder: Path) -> LabelPool:
        propagated = propagation.write(folder / "propagated")
        return LabelPool(propagated.manifest, propagated.classes, spec.normalization)

    return LabelPlan(propagation.atlas.manifest, subset.classes.count, propagate)


def _plan_maps(source: LabelSource, folder: Path, cases: Manifest, spec: TrainedModel) -> LabelPlan:
    """Plans a store of maps with the spacing of the scans, of which a crop and its surroundings are kept."""
    i, j, k = spec.spacing_mm or np.median([case.spacing_mm for case in cases.cases], axis=0).tolist()
    a, b, c = np.multiply(spec.patch_size, (i, j, k)).tolist()

    def write(out: Path) -> LabelPool:
        maps = write_label_map_store(
            folder, source.structures, (i, j, k), (a, b, c), spec.in_channels, out / "label_maps"
        )
        names = {n: "+".join(map(str, group)) for n, group in enumerate(source.structures, 1)}
        return LabelPool(maps, Classes(names), IntensityNormalization())

    return LabelPlan(replace(cases, cases=()), len(source.structures) + 1, write)
