"""Publishes a finished run as a self-contained folder without names of cases, patients or paths."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medssl.errors import BadInput
from medssl.files import atomic_folder, write_checksums, write_json, write_text
from medssl.inference.calibration import CALIBRATION_FILE, Calibration
from medssl.models.bundles.bundle_model import is_bundle
from medssl.models.model_card import ModelCardFacts, render_model_card
from medssl.models.provenance import list_weight_licences
from medssl.run import Run

METADATA_KEYS = (
    "kind", "state", "created", "finished", "version", "git", "network", "normalization_of_weights", "start",
    "start_licences",
    "manifest", "scores", "resource_usage", "alarm", "weights_sha256",
)  # fmt: skip
PRIVATE_KEYS = ("predictions", "references", "model")  # keys of an evaluation summary that hold local paths
PATH_SETTINGS = ("run", "manifest", "pretrained")


def publish(
    run: Run,
    out: Path,
    facts: ModelCardFacts,
    evaluation: Mapping[str, Any] | None = None,
    add_files: Sequence[Callable[[Path, Run], None]] = (),
) -> None:
    """Writes weights, settings, calibration, evaluation and a model card to a new folder.

    The folder is a run itself and predicts exactly as the original. Case and patient names, the traces of the training
    data and paths are left out.

    Args:
        run: A finished run.
        out: A folder that does not exist yet.
        facts: What the authors state in the model card.
        evaluation: The summary of an evaluation, from `read_evaluation`.
        add_files: Functions that add the network of the run to the folder in other formats.
    """
    if not run.is_closed:
        raise BadInput(f"{run.path}: this run has not finished; continue it with resume=true")
    if is_bundle(run):
        raise BadInput(f"{run.path}: holds the network of a MONAI bundle; share that bundle")
    with atomic_folder(out) as part:
        _write_files(part, run, facts, evaluation)
        for add_file in add_files:
            add_file(part, run)


def read_evaluation(folder: Path, run: Run) -> dict[str, Any]:
    """Reads the summary that `medssl evaluate` wrote for predictions of this run."""
    path = folder / "summary.json"
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        weights = summary["model"]["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{folder}: no evaluation ({path.name}); give a folder that `medssl evaluate` wrote") from None
    if weights != run.metadata["weights_sha256"]:
        raise BadInput(f"{folder}: evaluates other weights than those of {run.path}; evaluate predictions of this run")
    return summary


def _write_files(part: Path, run: Run, facts: ModelCardFacts, evaluation: Mapping[str, Any] | None) -> None:
    """Writes all files of the published run."""
    calibration, settings = Calibration.load([run]), run.read_settings()
    metadata = {name: run.metadata[name] for name in METADATA_KEYS if name in run.metadata}
    metadata |= {"start_licences": list_weight_licences(run)}
    metadata |= {"labelled_volumes": len(run.metadata.get("cases", ()))}
    shutil.copyfile(run.weights, part / "weights.safetensors")
    write_json(part / "run.json", metadata)
    write_text(part / "config.yaml", yaml.safe_dump(_without_paths(settings), sort_keys=False))
    if calibration.weights_sha256:
        write_json(part / CALIBRATION_FILE, calibration.model_dump(mode="json") | {"cases": []})
    if evaluation:
        public = {name: evaluation[name] for name in evaluation if name not in PRIVATE_KEYS}
        write_json(part / "evaluation.json", public)
    write_text(part / "README.md", render_model_card(metadata, settings, facts, calibration, evaluation))
    write_checksums(part, sorted(path.name for path in part.iterdir()))


def _without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Shortens paths to their last part, so that the folder does not reveal where files were stored."""
    return {name: Path(value).name if name in PATH_SETTINGS and value else value for name, value in settings.items()}
