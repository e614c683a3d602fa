"""Reads from the configuration of a MONAI bundle how its network predicts."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from medssl.config import check
from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.models.bundles.bundle_model import BundleInferer, BundleModel
from medssl.models.bundles.preprocessing import STEPS, BundleStep, IntensityRangeStep, SpacingStep
from medssl.nn.interop.bundle_config import BundleConfig
from medssl.nn.interop.monai_networks import MonaiNetwork
from medssl.volume import Spacing, Unit

NEUTRAL_STEPS = ("LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "ToTensord")
POST_STEPS = ("Activationsd", "Invertd", "AsDiscreted", "SaveImaged", *NEUTRAL_STEPS)
IGNORED_ARGUMENTS = ("keys", "allow_missing_keys", "dtype", "lazy", "recompute_affine", "ensure_same_shape")
INFERER_ARGUMENTS = tuple(BundleInferer.model_fields)
UNITS: Mapping[str, tuple[Unit, ...]] = {"CT": ("HU",), "MR": ("a.u.",), "MRI": ("a.u.",)}
EXAMPLE = "'preprocessing#transforms=[{_target_: Orientationd, axcodes: RAS}]'"
log = logging.getLogger(__name__)


def read_bundle_model(config: BundleConfig, network: MonaiNetwork, names: tuple[str, ...] = ()) -> BundleModel:
    """Returns how the network of a bundle predicts.

    Args:
        config: The configuration of the bundle.
        network: Its network.
        names: The names of the classes 1, 2, ...; () takes those of metadata.json.

    Raises:
        BadInput: If a step is unknown, an expression or missing; the message names what can be given instead.
    """
    steps = tuple(_read_steps(config))
    inferer = _read_inferer(config)
    image = _find_format(config, "inputs")
    return BundleModel(
        in_channels=network.in_channels,
        normalization=_find_window(steps),
        spacing_mm=_find_spacing(steps),
        patch_size=inferer.roi_size,
        labels=_name_classes(config, network, names),
        units=UNITS.get(str(image.get("modality")).upper(), ()),
        network=network,
        steps=steps,
        inferer=inferer,
        activation=_read_activation(config, network),
    )


def _read_steps(config: BundleConfig) -> Iterator[BundleStep]:
    """Yields the transforms of the image; those that only load it, or concern the label, are left out."""
    key = config.find("preprocessing", "validate#preprocessing")
    if not key:
        raise BadInput(
            f"{config.file}: states no preprocessing; give its transforms as MONAI writes them with --set {EXAMPLE}, or"
            " import the encoder alone with --encoder-only"
        )
    image_key: Any = None
    for place, name, transform in _iterate_transforms(config, key):
        keys = config.get(f"{place}#keys")
        keys = keys if isinstance(keys, list) else [keys]
        image_key = image_key or keys[0]
        if name in NEUTRAL_STEPS or image_key not in (None, *keys):
            continue
        if name not in STEPS:
            raise BadInput(_describe_unknown(config, place, name, (*STEPS, *NEUTRAL_STEPS)))
        fields = {
            argument: config.get(f"{place}#{argument}")
            for argument in transform
            if argument not in IGNORED_ARGUMENTS and not argument.startswith("_")
        }
        step: Any = check(fields, STEPS[name], f"{config.file}: {place}")
        yield step


def _iterate_transforms(config: BundleConfig, key: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields id, name and arguments of each transform of a `Compose`, or of a list of transforms."""
    place, value = config.look_up(key)
    if isinstance(value, dict):
        place, value = config.look_up(f"{place}#transforms")
    if not isinstance(value, list):
        config.get(place)  # refuses an expression
        raise BadInput(f"{config.file}: {place} is no list of transforms; give it with --set {EXAMPLE}")
    for number in range(len(value)):
        item, transform = config.look_up(f"{place}#{number}")
        if transform is None or (isinstance(transform, dict) and transform.get("_disabled_") is True):
            continue
        target = transform.get("_target_") if isinstance(transform, dict) else transform
        package, _, name = str(target).rpartition(".")
        if not f"{package}.".startswith(("monai.transforms.", ".")):
            name = str(target)
        yield item, name, transform if isinstance(transform, dict) else {}


def _describe_unknown(config: BundleConfig, place: str, name: str, known: tuple[str, ...]) -> str:
    return (
        f"{config.file}: {place} is {name}, which is not computed here (known: {', '.join(known)}); leave it out with"
        f" --set {place}=null if results may differ, or import the encoder alone with --encoder-only"
    )


def _read_inferer(config: BundleConfig) -> BundleInferer:
    """Reads the sliding window; its size may stand in metadata.json instead."""
    key = config.find("inferer", "validate#inferer")
    place, value = config.look_up(key) if key else ("inferer", {})
    if not isinstance(value, dict):
        config.get(place)
    target = str(value.get("_target_", "SlidingWindowInferer"))
    if target.rpartition(".")[2] != "SlidingWindowInferer":
        raise BadInput(
            f"{config.file}: {place} is {target}; expected SlidingWindowInferer, with --set {place}#_target_="
            f"SlidingWindowInferer --set {place}#roi_size=[96,96,96]"
        )
    fields = {name: config.get(f"{place}#{name}") for name in INFERER_ARGUMENTS if name in value}
    image = _find_format(config, "inputs")
    if "roi_size" not in fields and image.get("is_patch_data") is True:
        fields["roi_size"] = image.get("spatial_shape")
    if fields.get("roi_size") is None:
        raise BadInput(f"{config.file}: states no size of windows; give it with --set {place}#roi_size=[96,96,96]")
    return check(fields, BundleInferer, f"{config.file}: {place}")


def _read_activation(config: BundleConfig, network: MonaiNetwork) -> Literal["softmax", "sigmoid"]:
    """Reads what turns outputs into probabilities, and refuses steps that would change the labels further."""
    activation: Literal["softmax", "sigmoid"] = "softmax"
    key = config.find("postprocessing", "validate#postprocessing")
    for place, name, _ in _iterate_transforms(config, key) if key else ():
        if name not in POST_STEPS:
            raise BadInput(_describe_unknown(config, place, name, POST_STEPS))
        if name == "Activationsd" and config.get(f"{place}#sigmoid"):
            activation = "sigmoid"
        if config.get(f"{place}#other") or config.get(f"{place}#threshold") not in (None, 0.5):
            raise BadInput(
                f"{config.file}: {place} has an activation or a threshold of its own; expected softmax, or sigmoid and"
                f" 0.5; leave it out with --set {place}=null if results may differ"
            )
    if (activation == "sigmoid") != (network.out_channels == 1):
        raise BadInput(
            f"{config.file}: {network.out_channels} outputs with {activation} are no classes of which each voxel has"
            " one, but overlapping regions; import the encoder alone with --encoder-only"
        )
    return activation


def _find_format(config: BundleConfig, direction: str) -> dict[str, Any]:
    """Returns what metadata.json states about the first input or output; empty if nothing."""
    formats = config.metadata.get("network_data_format")
    entries = formats.get(direction) if isinstance(formats, dict) else None
    first = next(iter(entries.values()), None) if isinstance(entries, dict) else None
    return first if isinstance(first, dict) else {}


def _name_classes(config: BundleConfig, network: MonaiNetwork, names: tuple[str, ...]) -> dict[int, str]:
    """Returns the class names by label value: those that are given, else those of metadata.json, else numbers."""
    numbers = range(1, max(2, network.out_channels))
    if names:
        if len(names) != len(numbers):
            raise BadInput(
                f"--labels {','.join(names)}: the network has {len(numbers)} classes; give one name for each"
            )
        return dict(zip(numbers, names, strict=True))
    channels = _find_format(config, "outputs").get("channel_def")
    shift = int(network.out_channels == 1)
    if not isinstance(channels, dict) or any(str(number - shift) not in channels for number in numbers):
        log.warning("%s does not name its classes: they are numbered; --labels names them", config.file.parent.parent)
        return {number: f"class {number}" for number in numbers}
    return {number: str(channels[str(number - shift)]) for number in numbers}


def _find_window(steps: tuple[BundleStep, ...]) -> IntensityNormalization:
    """Returns the intensity normalization of medssl that is nearest to the steps."""
    window = next((step for step in steps if isinstance(step, IntensityRangeStep)), None)
    if window is None or window.a_min >= window.a_max:
        return IntensityNormalization()
    return IntensityNormalization(window_hu=(window.a_min, window.a_max))


def _find_spacing(steps: tuple[BundleStep, ...]) -> Spacing | None:
    """Returns the spacing that the steps lead to; None for that of each scan."""
    return next((step.pixdim for step in steps if isinstance(step, SpacingStep)), None)
