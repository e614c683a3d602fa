"""Reads how nnU-Net or nnssl trained a network: spacing, patch, intensities and classes, from the plans of the project.

nnU-Net keeps its plans in the checkpoint (`init_args`) and in its folder (plans.json, dataset.json); nnssl keeps an
adaptation plan in the checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.nn.encoders.base import MeanAndStd
from medssl.nn.executor import Triple
from medssl.nn.interop.nnunet_network import REVERSED_AXES

CT_SCHEME = "CTNormalization"
MIN_STD_HU = 1e-8  # as in nnU-Net


@dataclass(frozen=True)
class TrainingPlan:
    """How a network was trained, with axes in the order of a store: x, y, z.

    Attributes:
        axes: For each axis of a store, the number of that axis in the network.
        patch_size: Size of the training crops in voxels; None if unknown.
        spacing_mm: Voxel spacing; None if unknown or that of each scan.
        schemes: nnU-Net's normalization of each channel; () if unknown.
        normalization: The intensity normalization of medssl that is nearest to it.
        input_mean_std: What standardizes the normalized channels as the network expects; () if nothing does.
        labels: The class names by label value; empty if unknown.
        has_regions: Whether the network predicts overlapping regions instead of classes.
        is_pretraining: Whether the network was pretrained without labels.
    """

    axes: Triple = REVERSED_AXES
    patch_size: Triple | None = None
    spacing_mm: tuple[float, float, float] | None = None
    schemes: tuple[str, ...] = ()
    normalization: IntensityNormalization = field(default_factory=IntensityNormalization)
    input_mean_std: tuple[MeanAndStd, ...] = ()
    labels: tuple[tuple[int, str], ...] = ()
    has_regions: bool = False
    is_pretraining: bool = False

    @property
    def is_ct(self) -> bool:
        """Whether the network expects CTs."""
        return bool(self.schemes) and all(scheme == CT_SCHEME for scheme in self.schemes)


def read_plan(values: Mapping[str, Any], path: Path) -> TrainingPlan:
    """Reads the plan of a checkpoint.

    Args:
        values: The values other than tensors of the checkpoint.
        path: The checkpoint; plans.json and dataset.json are looked for in its folder and one above.

    Raises:
        BadInput: If a plan cannot be understood.
    """
    where = str(path)
    try:
        if isinstance(adaptation := values.get("nnssl_adaptation_plan"), dict):
            return _read_adaptation_plan(adaptation)
        arguments = values.get("init_args") or {}
        plans = arguments.get("plans") or _read_neighbour(path, "plans.json")
        dataset = arguments.get("dataset_json") or _read_neighbour(path, "dataset.json") or {}
        if not plans:
            return TrainingPlan(**_read_labels(dataset))
        return _read_plans(plans, str(arguments.get("configuration", "3d_fullres")), dataset)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadInput(f"{where}: its plans are not those of nnU-Net 2 or nnssl ({error!r}); move plans.json and"
                       " dataset.json away to import the tensors alone") from None  # fmt: skip


def _read_plans(plans: Mapping[str, Any], name: str, dataset: Mapping[str, Any]) -> TrainingPlan:
    """Reads the plans of nnU-Net 2 for one of their configurations."""
    configuration = _resolve_configuration(plans["configurations"], name)
    forward = [int(axis) for axis in plans.get("transpose_forward", (0, 1, 2))]
    # Axis a of the network is axis forward[a] of an array along z, y, x, so axis 2 - forward[a] of a store.
    i, j, k = (forward.index(2 - axis) for axis in range(3))
    axes = (i, j, k)
    schemes = tuple(str(scheme) for scheme in configuration.get("normalization_schemes", ()))
    normalization, moments = _convert_normalization(
        schemes, plans.get("foreground_intensity_properties_per_channel", {})
    )
    return TrainingPlan(
        axes=axes,
        patch_size=_to_sizes(configuration["patch_size"], axes),
        spacing_mm=_to_spacing(configuration.get("spacing"), axes),
        schemes=schemes,
        normalization=normalization,
        input_mean_std=moments,
        **_read_labels(dataset),
    )


def _read_adaptation_plan(plan: Mapping[str, Any]) -> TrainingPlan:
    """Reads the adaptation plan of nnssl, which has no labels."""
    configurations = (plan.get("pretrain_plan") or {}).get("configurations") or {}
    configuration: Mapping[str, Any] = next(iter(configurations.values()), {})
    patch = plan.get("recommended_downstream_patchsize") or configuration.get("patch_size")
    schemes = configuration.get("normalization_schemes") or ()
    return TrainingPlan(
        patch_size=_to_sizes(patch, REVERSED_AXES) if patch else None,
        spacing_mm=_to_spacing(configuration.get("spacing"), REVERSED_AXES),
        schemes=(schemes,) if isinstance(schemes, str) else tuple(str(scheme) for scheme in schemes),
        is_pretraining=True,
    )


def _resolve_configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a configuration with the values that it inherits from another one."""
    configuration = configurations[name]
    parent = configuration.get("inherits_from")
    return (_resolve_configuration(configurations, parent) if parent else {}) | configuration


def _convert_normalization(
    schemes: tuple[str, ...], intensities: Mapping[str, Any]
) -> tuple[IntensityNormalization, tuple[MeanAndStd, ...]]:
    """Returns the window of a CT, and the z-score that follows it; the defaults if not all channels are one CT window.

    nnU-Net clips a CT to percentiles of the training foreground and standardizes it with their mean and standard
    deviation. It standardizes each MR with its own moments: there the first norm of the network removes the scale, and
    the shift but for the border of a window.
    """
    if not schemes or any(scheme != CT_SCHEME for scheme in schemes):
        return IntensityNormalization(), ()
    channels = [intensities[str(n)] for n in range(len(schemes))]
    windows = {(float(c["percentile_00_5"]), float(c["percentile_99_5"])) for c in channels}
    if len(windows) != 1:
        return IntensityNormalization(), ()
    low, high = windows.pop()
    span = high - low
    moments = tuple(((float(c["mean"]) - low) / span, max(float(c["std"]), MIN_STD_HU) / span) for c in channels)
    return IntensityNormalization(window_hu=(low, high)), moments


def _read_labels(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the class names of dataset.json, without background and the label to ignore."""
    labels = {name: value for name, value in dataset.get("labels", {}).items() if name not in ("background", "ignore")}
    if any(isinstance(value, (list, tuple)) for value in labels.values()):
        return {"has_regions": True}
    return {"labels": tuple(sorted((int(value), str(name)) for name, value in labels.items()))}


def _read_neighbour(path: Path, name: str) -> dict[str, Any] | None:
    """Reads a JSON file in the folder of a checkpoint or one above it, if there is one."""
    for file in (path.parent / name, path.parent.parent / name):
        if file.is_file():
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return content
    return None


def _to_sizes(values: Any, axes: Triple) -> Triple:
    i, j, k = (int(values[axis]) for axis in axes)
    return i, j, k


def _to_spacing(values: Any, axes: Triple) -> tuple[float, float, float] | None:
    """Returns a spacing in mm; None where it is that of each scan."""
    if not values or any(value is None for value in values):
        return None
    i, j, k = (float(values[axis]) for axis in axes)
    return i, j, k
