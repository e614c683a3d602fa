"""Published: a finished run as one folder to give away, which predicts as the run does and names no case."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medssl.errors import BadInput
from medssl.files import fresh, seal, write_json, write_text
from medssl.inference.calibration import FILE, Calibration
from medssl.models import model_card
from medssl.models.model_card import Facts
from medssl.run import Run

KEPT = (
    "kind", "state", "created", "finished", "version", "git", "network", "recipe_of_weights", "start", "manifest",
    "scores", "spent", "alarm", "weights_sha256",
)  # fmt: skip
TRACES = ("predictions", "references", "model")  # of an evaluation: whose it was, and where it lay
PATHS = ("run", "manifest", "pretrained")


def publish(run: Run, out: Path, facts: Facts, evaluation: Mapping[str, Any] | None = None) -> None:
    """Writes weights, settings, calibration, evaluation and a model card; the folder is a run like the one it is of.

    What it leaves behind: names of cases and patients, what the run has seen of them, and paths.
    """
    if not run.closed:
        raise BadInput(f"{run.path}: this run has not finished; go on with resume=true")
    with fresh(out) as part:
        _fill(part, run, facts, evaluation)


def evaluated(folder: Path, run: Run) -> dict[str, Any]:
    """What `medssl evaluate` measured of the run's predictions."""
    path = folder / "summary.json"
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        weights = told["model"]["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{folder}: no evaluation ({path.name}); give the folder `medssl evaluate` wrote") from None
    if weights != run.card["weights_sha256"]:
        raise BadInput(f"{folder}: is of other weights than {run.path}; evaluate the predictions of this run")
    return told


def _fill(part: Path, run: Run, facts: Facts, evaluation: Mapping[str, Any] | None) -> None:
    card, calibration = run.card, Calibration.of([run])
    told = {name: card[name] for name in KEPT if name in card} | {"labelled_volumes": len(card.get("cases", ()))}
    shutil.copyfile(run.weights, part / "weights.safetensors")
    write_json(part / "run.json", told)
    write_text(part / "config.yaml", yaml.safe_dump(_without_paths(run.settings()), sort_keys=False))
    if calibration.weights_sha256:
        write_json(part / FILE, calibration.model_dump(mode="json") | {"cases": []})
    if evaluation:
        write_json(part / "evaluation.json", {name: evaluation[name] for name in evaluation if name not in TRACES})
    write_text(part / "README.md", model_card.text(told, run.settings(), facts, calibration, evaluation))
    seal(part, sorted(path.name for path in part.iterdir()))


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of paths, only what they end with: where a folder lay is nobody else's business."""
    return {name: Path(value).name if name in PATHS and value else value for name, value in settings.items()}
