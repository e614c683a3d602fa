"""Model card: what a published run is for, what it learnt from, how well it did, and where it must not be trusted.

After Mitchell et al., Model Cards for Model Reporting, 2019, https://arxiv.org/abs/1810.03993.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medssl.data.normalization import Recipe
from medssl.evaluation.report import interval
from medssl.inference.calibration import Calibration
from medssl.predictions_folder import NOTICE
from medssl.settings import Settings

METRICS = {"dice": "Dice", "nsd": "NSD", "hd95_mm": "HD95 (mm)", "volume_error_ml": "volume error (ml)"}
LESIONS = {"average_precision": "AP", "auroc": "AUROC of patients", "cpm": "CPM", "map_iou_10_50": "mAP at IoU 0.1-0.5"}
UNKNOWN = "Not told."
STARTS = {
    None: "weights drawn at random",
    "pretrain": "a pretraining without labels",
    "finetune": "a finetuning with labels, whose volumes it has learnt from too",
    "import": "weights that were imported",
}


class Facts(Settings):
    """What only people know of a model; the rest of its card is filled from the run."""

    title: str = ""
    intended_use: str = "Research on scans like those it learnt from."
    data: str = UNKNOWN
    limits: str = ""
    licence: str = UNKNOWN
    contact: str = UNKNOWN


def text(
    card: Mapping[str, Any],
    settings: Mapping[str, Any],
    facts: Facts,
    calibration: Calibration,
    evaluation: Mapping[str, Any] | None,
) -> str:
    """The card as Markdown."""
    network = card["network"]
    labels = ", ".join(f"{value} {name}" for value, name in network["labels"].items())
    parts = [
        f"# {facts.title or _title(network)}\n**{NOTICE}**",
        f"## Intended use\n{facts.intended_use}\n\nNot for diagnosis, treatment or triage, alone or beside a reader.",
        f"## Labels\n{labels}",
        "## Data\n" + "\n".join((facts.data, *_learnt_from(card, settings))),
        "## Metrics\n" + "\n".join(_metrics(evaluation)),
        "## Calibration\n" + "\n".join(_calibrated(calibration)),
        "## Limits\n" + "\n".join(f"- {line}" for line in _limits(card, facts, evaluation)),
        "## Use\n```sh\nmedssl predict THIS_FOLDER SCANS --out predictions\n```\n"
        f"Made by medssl {card['version']}; on a CPU, the same version gives the same labels bit for bit.",
        f"## Provenance\nWeights (SHA-256): `{card['weights_sha256']}`; training set: `{card.get('manifest', '')}`; "
        f"finished {card.get('finished', '')}.\n\nLicence: {facts.licence}\nContact: {facts.contact}",
    ]
    return "\n\n".join(parts) + "\n"


def _title(network: Mapping[str, Any]) -> str:
    does = "Detection" if network.get("task", {}).get("name") == "detect" else "Segmentation"
    return f"{does} of {', '.join(network['labels'].values())}"


def _learnt_from(card: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    network = card["network"]
    mm = network["spacing_mm"]
    yield f"- Learnt from {card['labelled_volumes']} labelled volumes, with {network['in_channels']} channels, at " + (
        f"{' x '.join(f'{v:g}' for v in mm)} mm." if mm else "their own spacing."
    )
    start = card.get("start", "pretrain" if settings.get("pretrained") else None)  # older runs do not tell
    yield f"- Started from {STARTS.get(start, UNKNOWN)}."
    yield from _fed(network["recipe"])


def _fed(told: Mapping[str, Any]) -> Iterator[str]:
    """How values become the network's input."""
    recipe = Recipe.model_validate(told)
    low, high = recipe.window_hu
    mixed = f" (of several channels, these: {_listed(recipe.hu_channels)})" if recipe.hu_channels else ""
    yield f"- CT{mixed} is windowed to {low:g} .. {high:g} HU."
    low, high = recipe.percentiles
    bent = [n for n, row in enumerate(recipe.landmarks) if row]
    after = f"; then the deciles of channels {_listed(bent)} are brought to landmarks of its pool" if bent else ""
    yield f"- All else is scaled from the {low:g} % to the {high:g} % percentile of each scan's own body{after}."


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _metrics(evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    if evaluation is None:
        yield "Not measured: this model was published without an evaluation."
        return
    left = f" ({len(evaluation['missing'])} more could not be predicted)" if evaluation.get("missing") else ""
    yield f"On {evaluation['cases']} cases that it was not trained on{left}; mean [95 % interval over patients].\n"
    yield f"| label | {' | '.join(METRICS.values())} |\n|---{'|---' * len(METRICS)}|"
    for label, told in evaluation["labels"].items():
        yield f"| {label} | {' | '.join(interval(told[name]['mean'], told[name]) for name in METRICS)} |"
    for kind, told in evaluation.get("lesions", {}).items():
        said = "; ".join(f"{name} {interval(told[key]['estimate'], told[key])}" for key, name in LESIONS.items())
        yield f"\nAs lesions, {kind} ({told['lesions']} in {told['cases']} cases): {said}."
    if evaluation.get("ece") is not None:
        yield f"\nExpected calibration error {evaluation['ece']:.4f}."


def _calibrated(calibration: Calibration) -> Iterator[str]:
    if not calibration.weights_sha256:
        yield "Not calibrated: its probabilities are as the network gives them, and may be too sure."
        return
    yield "; ".join(calibration.told()) + "."
    for name, told in calibration.thresholds.items():
        yield f"- {name}: {told.promise}"


def _limits(card: Mapping[str, Any], facts: Facts, evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    if facts.limits:
        yield facts.limits
    if "alarm" in card:
        yield f"It {card['alarm']}."
    unseen = "scanners, protocols, ages and diseases not among them may be segmented wrongly without any sign of it"
    yield f"It has seen {card['labelled_volumes']} labelled volumes; {unseen}."
    if evaluation is None:
        yield "Nothing is known of how well it does."
    elif evaluation["cases"] < 30:
        yield f"{evaluation['cases']} test cases are few: the intervals above are wide, and rare failures are not seen."
    yield "Its uncertainty is that of a network about scans it knows; it does not tell that a scan is of another kind."
