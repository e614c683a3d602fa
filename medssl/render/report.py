"""Writes the report of a run: one HTML file that embeds its curves, pictures and facts."""

import base64
import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from medssl.files import write_text
from medssl.render.curves import Points, draw_curve
from medssl.render.templates import render_template
from medssl.run import Run

NAME = "report.html"
TEMPLATE = Path(__file__).with_name("run_report.html")
NOTICE = "Research use only. Not for clinical use."
MAX_PICTURES = 4
BASELINE_SUFFIXES = ("_chance", "_random")  # the last value of `x_chance` is a dashed line in the curve of `x`
DESCRIPTIONS = {
    "monitor_rank": "dimensions the embeddings use (RankMe)",
    "monitor_spread": "1: spread over the whole sphere; 0: collapsed",
    "monitor_uniformity": "0: collapsed; lower is more uniform",
    "monitor_alignment": "mean squared distance of positive pairs",
    "monitor_knn": "body region by nearest neighbours in other volumes; dashed: the most frequent region",
    "monitor_knn_site": "site by nearest neighbours in other volumes; dashed: the most frequent site",
    "monitor_knn_modality": "modality by nearest neighbours in other volumes; dashed: the most frequent one",
    "monitor_knn_sex": "sex by nearest neighbours in other volumes; dashed: the more frequent one",
    "monitor_share": "fraction of the training time that the monitors take",
    "probe_dice": "frozen features, few labels; dashed: untrained features",
    "crops_per_s": "training crops per second",
    "loader_wait": "fraction of the time that the training waits for its crops",
}


def write(run: Run) -> Path:
    """Writes report.html into an open run, from its current metadata and logs."""
    path = run.path / NAME
    write_text(path, render_html(run))
    return path


def render_html(run: Run) -> str:
    """Returns the report as HTML without references to other files or to the network."""
    metadata = run.metadata
    logged = _append_final_scores(read_curves(run.path / "logs" / "metrics.csv"), metadata.get("scores", {}))
    is_finished = "scores" in metadata
    epoch = max((int(points[-1][0]) for points in logged.values()), default=0)
    labels = (metadata.get("network") or {}).get("labels", {})
    groups: dict[str, list[dict[str, str]]] = {"Loss, by epoch": [], "Monitors": [], "Scores and speed": []}
    for name in logged:
        if not name.endswith(BASELINE_SUFFIXES):
            groups[_group_title(name)].append(_describe_curve(name, logged, labels))
    tensors = metadata.get("transfer") or []
    statuses = [tensor["status"] for tensor in tensors]
    return render_template(
        TEMPLATE,
        title=f"{metadata['kind']} {run.path.name}",
        name=run.path.name,
        kind=metadata["kind"],
        created=metadata["created"],
        version=metadata["version"],
        notice=NOTICE,
        is_finished=is_finished,
        state="finished" if is_finished else f"stopped after epoch {epoch}; resume=true continues it",
        alarm=metadata.get("alarm"),
        groups=groups,
        pictures=[_encode_picture(path) for path in _select_pictures(sorted((run.path / "previews").glob("*.png")))],
        facts={"Result": _collect_results(metadata, labels), "Origin": _collect_origin(run, metadata)},
        tensors=tensors,
        tensor_counts=", ".join(f"{statuses.count(status)} {status}" for status in ("loaded", "adapted", "skipped")),
        settings=(run.path / "config.yaml").read_text(encoding="utf-8"),
    )


def read_curves(path: Path) -> dict[str, Points]:
    """Reads the logged numbers as points (epoch, value), with epochs counted from 1; empty without a log."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    names = [name for name in (rows[0] if rows else {}) if name not in ("epoch", "step")]
    names.sort(key=lambda name: (name != "loss", name))
    curves = {name: [(int(row["epoch"]) + 1.0, float(row[name])) for row in rows if row[name]] for name in names}
    return {name: points for name, points in curves.items() if points}


def _append_final_scores(logged: dict[str, Points], scores: Mapping[str, float]) -> dict[str, Points]:
    """Adds the probe scores of the final weights, which are measured after the last epoch."""
    last = max((points[-1][0] for points in logged.values()), default=0.0)
    probes = [name for name in scores if name.startswith("probe_")]
    return logged | {name: [*logged.get(name, []), (last, scores[name])] for name in probes}


def _group_title(name: str) -> str:
    if name.startswith(("val_", "probe_", "crops_per_s", "loader_wait")):
        return "Scores and speed"
    return "Monitors" if name.startswith("monitor_") else "Loss, by epoch"


def _describe_curve(name: str, logged: Mapping[str, Points], labels: Mapping[str, str]) -> dict[str, str]:
    """Returns the title, the last value, the drawing and the caption of a curve."""
    points = logged[name]
    baseline = next((logged[name + suffix][-1][1] for suffix in BASELINE_SUFFIXES if name + suffix in logged), None)
    values = [value for _, value in points if math.isfinite(value)]
    value_range = f"{min(values):.4g} to {max(values):.4g}" if values else "never finite"
    return {
        "title": _format_name(name.removeprefix("monitor_"), labels),
        "last": f"{points[-1][1]:.4g}",
        "svg": Markup(draw_curve(points, baseline)),  # noqa: S704
        "caption": "; ".join(filter(None, (DESCRIPTIONS.get(name), value_range))),
    }


def _select_pictures(paths: Sequence[Path]) -> list[Path]:
    """Returns at most MAX_PICTURES of the pictures: the first, the last and some evenly spaced between them."""
    if len(paths) <= MAX_PICTURES:
        return list(paths)
    return [paths[round(n * (len(paths) - 1) / (MAX_PICTURES - 1))] for n in range(MAX_PICTURES)]


def _encode_picture(path: Path) -> dict[str, str]:
    return {"title": path.stem.replace("_", " "), "data": base64.b64encode(path.read_bytes()).decode()}


def _format_name(name: str, labels: Mapping[str, str]) -> str:
    """Returns the name of a score with the class name in place of its number: `val_dice_2` -> `val dice liver`."""
    words, _, number = name.rpartition("_")
    return f"{words.replace('_', ' ')} {labels[number]}" if number in labels else name.replace("_", " ")


def _collect_results(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, object]:
    usage = {name.replace("_", " "): value for name, value in metadata.get("resource_usage", {}).items()}
    return usage | {_format_name(name, labels): f"{value:.4g}" for name, value in metadata.get("scores", {}).items()}


def _collect_origin(run: Run, metadata: Mapping[str, Any]) -> dict[str, object]:
    """Returns what the run was trained on, with which code and which network."""
    git, network = metadata.get("git") or {}, metadata.get("network") or {}
    changed = " with uncommitted changes" if git.get("changed") else ""
    return {
        "data digest": metadata.get("manifest"),
        "data card": _format_value({key: value for key, value in metadata.get("data", {}).items() if value}),
        "trained on": _describe_pool(run.path / "pool.npz"),
        "labelled cases": ", ".join(metadata.get("cases", [])),
        "propagated labels": _format_value(
            {key: value for key, value in metadata.get("propagated", {}).items() if value is not None}
        ),
        "code": f"{git['commit']}{changed}" if git else "not a git checkout",
        **{
            key.replace("_", " "): _format_value(value)
            for key, value in network.items()
            if key != "task" or network.get("labels")
        },
    }


def _describe_pool(path: Path) -> str:
    if not path.is_file():
        return ""
    with np.load(path) as columns:
        patients = columns["patient"]
    return f"{len(patients)} cases of {len(np.unique(patients, axis=0))} patients"


def _format_value(value: object) -> str:
    """Returns nested mappings and lists on one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_format_value(inner)}" for key, inner in value.items())
    return ", ".join(map(_format_value, value)) if isinstance(value, list) else str(value)
