"""Renders the model card of a published run: intended use, training data, metrics, calibration and limits.

After Mitchell et al., Model Cards for Model Reporting, 2019, https://arxiv.org/abs/1810.03993.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from medssl.data.normalization import IntensityNormalization
from medssl.evaluation.report import format_interval
from medssl.inference.calibration import Calibration
from medssl.predictions_folder import NOTICE
from medssl.settings import Settings

METRICS = {"dice": "Dice", "nsd": "NSD", "hd95_mm": "HD95 (mm)", "volume_error_ml": "volume error (ml)"}
TITLES = {"detect": "Detection", "classify": "Classification"}
LESION_METRICS = {
    "average_precision": "AP",
    "auroc": "AUROC of patients",
    "cpm": "CPM",
    "map_iou_10_50": "mAP at IoU 0.1-0.5",
}
NOT_STATED = "Not stated."
INITIALIZATIONS = {
    None: "random weights",
    "pretrain": "a pretraining without labels",
    "finetune": "an earlier finetuning, whose labelled volumes count as training data too",
    "import": "imported weights",
    "examples": "an in-context segmentation that was shown other examples",
}


class ModelCardFacts(Settings):
    """The parts of a model card that only its authors know; all others are filled in from the run."""

    title: str = Field("", description="title of the card; empty names the task and the classes")
    intended_use: str = Field(
        "Research on scans like those it was trained on.", description="what the model may be used for, and by whom"
    )
    data: str = Field(NOT_STATED, description="origin of the training data: sites, scanners, population, dates")
    limits: str = Field("", description="known limits, added to those that every card states")
    licence: str = Field(NOT_STATED, description="licence of the weights, e.g. CC-BY-4.0")
    contact: str = Field(NOT_STATED, description="who answers questions about the model")


def render_model_card(
    metadata: Mapping[str, Any],
    settings: Mapping[str, Any],
    facts: ModelCardFacts,
    calibration: Calibration,
    evaluation: Mapping[str, Any] | None,
) -> str:
    """Returns the model card as Markdown.

    Args:
        metadata: The run.json of the published run.
        settings: The settings that the run was trained with.
        facts: The statements of the authors.
        calibration: The calibration of the run; the default one if it has none.
        evaluation: The summary.json of `medssl evaluate`, if the model was evaluated.
    """
    network = metadata["network"]
    labels = ", ".join(f"{value} {name}" for value, name in network["labels"].items())
    sections = [
        f"# {facts.title or _make_title(network)}\n**{NOTICE}**",
        f"## Intended use\n{facts.intended_use}\n\n"
        "Not for diagnosis, treatment or triage, neither alone nor as a second reader.",
        f"## Labels\n{labels}",
        "## Data\n" + "\n".join((facts.data, *_describe_training_data(metadata, settings))),
        "## Metrics\n" + "\n".join(_describe_metrics(evaluation)),
        "## Calibration\n" + "\n".join(_describe_calibration(calibration)),
        "## Limits\n" + "\n".join(f"- {line}" for line in _describe_limits(metadata, facts, evaluation)),
        "## Use\n```sh\nmedssl predict THIS_FOLDER SCANS --out predictions\n```\n"
        f"Made by medssl {metadata['version']}; on a CPU, the same version gives the same labels bit for bit.",
        f"## Provenance\nWeights (SHA-256): `{metadata['weights_sha256']}`; "
        f"training set: `{metadata.get('manifest', '')}`; finished {metadata.get('finished', '')}.\n\n"
        f"Licence: {facts.licence}{_describe_origins(metadata)}\nContact: {facts.contact}",
    ]
    return "\n\n".join(sections) + "\n"


def _describe_origins(metadata: Mapping[str, Any]) -> str:
    """Returns a line with the licence of each file of imported weights, which holds for the published ones as well."""
    origins = metadata.get("start_licences", [])
    return "".join(f"\nMade from {o['file']} (SHA-256 `{o['sha256']}`), licence: {o['licence']}" for o in origins)


def _make_title(network: Mapping[str, Any]) -> str:
    """Returns a title from the task and the class names."""
    task = network.get("task", {}).get("name", "segment")
    return f"{TITLES.get(task, 'Segmentation')} of {', '.join(network['labels'].values())}"


def _describe_training_data(metadata: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines on the training set, the initial weights and the intensity normalization."""
    network = metadata["network"]
    spacing_mm = network["spacing_mm"]
    spacing = f"resampled to {' x '.join(f'{v:g}' for v in spacing_mm)} mm" if spacing_mm else "at their own spacing"
    channels = f"{network['in_channels']} channels"
    yield f"- Trained on {metadata['labelled_volumes']} labelled volumes with {channels}, {spacing}."
    start = metadata.get("start", "pretrain" if settings.get("pretrained") else None)  # older runs lack `start`
    yield f"- Initialized with {INITIALIZATIONS.get(start, NOT_STATED)}."
    yield from _describe_normalization(network["normalization"])


def _describe_normalization(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines on how voxel values become network input."""
    normalization = IntensityNormalization.model_validate(fields)
    low, high = normalization.window_hu
    ct_channels = f" (channels {_join(normalization.hu_channels)})" if normalization.hu_channels else ""
    yield f"- CT{ct_channels} is clipped to the window {low:g} .. {high:g} HU."
    low, high = normalization.percentiles
    matched = [n for n, landmarks in enumerate(normalization.landmarks) if landmarks]
    deciles = f"; the deciles of channels {_join(matched)} are then mapped to the training landmarks" if matched else ""
    yield (
        f"- Other intensities are scaled from the {low:g} % to the {high:g} % percentile inside the body of each scan"
        f"{deciles}."
    )


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _describe_metrics(evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    """Yields the table of segmentation metrics and one line per lesion label."""
    if evaluation is None:
        yield "Not measured: this model was published without an evaluation."
        return
    missing = f" ({len(evaluation['missing'])} more could not be predicted)" if evaluation.get("missing") else ""
    yield f"On {evaluation['cases']} cases that it was not trained on{missing}; mean [95 % interval over patients].\n"
    yield f"| label | {' | '.join(METRICS.values())} |\n|---{'|---' * len(METRICS)}|"
    for label, scores in evaluation["labels"].items():
        yield f"| {label} | {' | '.join(format_interval(scores[name]['mean'], scores[name]) for name in METRICS)} |"
    for label, scores in evaluation.get("lesions", {}).items():
        values = "; ".join(
            f"{name} {format_interval(scores[key]['estimate'], scores[key])}" for key, name in LESION_METRICS.items()
        )
        yield f"\nDetection of {label} ({scores['lesions']} lesions in {scores['cases']} cases): {values}."
    if evaluation.get("ece") is not None:
        yield f"\nExpected calibration error {evaluation['ece']:.4f}."


def _describe_calibration(calibration: Calibration) -> Iterator[str]:
    """Yields the summary of the calibration and the guarantee of each threshold."""
    if not calibration.weights_sha256:
        yield "Not calibrated: the probabilities are the raw output of the network and may be overconfident."
        return
    yield "; ".join(calibration.summary_lines()) + "."
    for name, threshold in calibration.thresholds.items():
        yield f"- {name}: {threshold.guarantee}"


def _describe_limits(
    metadata: Mapping[str, Any], facts: ModelCardFacts, evaluation: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yields the stated limits and those that follow from the training and test sets."""
    if facts.limits:
        yield facts.limits
    if "alarm" in metadata:
        yield f"Alarm raised by the training: {metadata['alarm']}."
    yield (
        f"It was trained on {metadata['labelled_volumes']} labelled volumes; on other scanners, protocols, ages and "
        "diseases it may fail without warning."
    )
    if evaluation is None:
        yield "Its performance is unknown."
    elif evaluation["cases"] < 30:
        yield (
            f"{evaluation['cases']} test cases are few: the intervals above are wide, and rare failures do not show up."
        )
    yield "Its uncertainty is meaningful only for scans like the training data; it does not flag scans of other kinds."
