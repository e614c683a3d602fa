"""Lists and filters runs, and draws their settings and curves side by side in one HTML file."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from medssl.errors import BadInput
from medssl.files import exclusive_lock
from medssl.render.curves import Points, draw_curves
from medssl.render.report import NOTICE, read_curves
from medssl.render.templates import render_template
from medssl.run import Run

TEMPLATE = Path(__file__).with_name("runs.html")
COLUMNS = ("run", "kind", "state", "started", "hours", "scores")
MAIN_SCORES = ("best_val_", "probe_dice", "loss")  # shown in the table, by the beginnings of their names
PLACES = ("run", "resume", "limits")  # settings that do not change a result


@dataclass(frozen=True)
class RunSummary:
    """What the table of runs shows of a run.

    Attributes:
        run: The run.
        name: Its path below the folder that was searched.
    """

    run: Run
    name: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The contents of run.json."""
        return self.run.metadata

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The resolved settings by dotted key, and `kind` and `state`."""
        values = flatten(self.run.read_settings() or {})
        return values | {"kind": self.facts["kind"], "state": self.facts["state"]}

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of the table, in the order of COLUMNS."""
        scores = self.facts.get("scores", {})
        main = {n: v for start in MAIN_SCORES for n, v in scores.items() if n.startswith(start)}
        hours = self.facts.get("resource_usage", {}).get("seconds", 0) / 3600
        text = "  ".join(f"{name} {value:.4g}" for name, value in main.items())
        return self.name, self.facts["kind"], self.facts["state"], self.facts["created"], f"{hours:.2f}", text

    def matches(self, filters: Mapping[str, str]) -> bool:
        """Whether all settings, given by dotted key, have these values as text; `kind` and `state` are keys, too."""
        return all(format_setting(self.settings.get(key)) == value for key, value in filters.items())


def find_runs(folder: Path) -> list[RunSummary]:
    """Returns the runs below a folder by path; a folder whose run.json or config.yaml is damaged is left out.

    Raises:
        BadInput: The folder holds no run.
    """
    runs = []
    for path in sorted(folder.rglob("run.json")):
        summary = RunSummary(Run(path.parent), str(path.parent.relative_to(folder)))
        try:
            _ = summary.row, summary.settings
        except (BadInput, OSError, KeyError, TypeError, AttributeError, yaml.YAMLError):
            continue
        runs.append(summary)
    if not runs:
        raise BadInput(f"{folder}: no run here; give the folder that holds the folders of runs")
    return runs


def parse_filters(words: Sequence[str]) -> dict[str, str]:
    """Parses filters of the form key=value."""
    pairs = [word.partition("=") for word in words]
    for word, (key, equals, _) in zip(words, pairs, strict=True):
        if not (key and equals):
            raise BadInput(f"{word!r}: is no filter; write dotted.key=value, for example objective.name=spark")
    return {key: value for key, _, value in pairs}


def find_differences(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    """Returns the settings in which the runs differ, by dotted key, with the value of each run as text."""
    keys = sorted({key for run in runs for key in run.settings if key.partition(".")[0] not in PLACES})
    values = {key: [format_setting(run.settings.get(key)) for run in runs] for key in keys}
    return {key: texts for key, texts in values.items() if len(set(texts)) > 1}


def render_comparison(runs: Sequence[RunSummary]) -> str:
    """Returns an HTML page with the differing settings and the curves of the runs over each other."""
    logged = [read_curves(run.run.path / "logs" / "metrics.csv") for run in runs]
    names = sorted({name for curves in logged for name in curves}, key=lambda name: (name != "loss", name))
    return render_template(
        TEMPLATE,
        title=f"{len(runs)} runs",
        columns=COLUMNS,
        rows=[run.row for run in runs],
        names=[run.name for run in runs],
        differences=find_differences(runs),
        curves=[{"title": name, "svg": Markup(_draw_all(name, logged, runs))} for name in names],  # noqa: S704
        notice=NOTICE,
    )


def prune(runs: Sequence[RunSummary]) -> list[str]:
    """Removes the unfinished runs among these and returns their names; one that is being trained now stays."""
    removed = []
    for run in runs:
        if run.facts["state"] == "closed":
            continue
        try:
            with exclusive_lock(run.run.path, "is being trained"):
                pass
        except BadInput:
            continue
        shutil.rmtree(run.run.path)
        removed.append(run.name)
    return removed


def flatten(values: Mapping[str, Any], parents: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{parents}{key}.") if isinstance(value, Mapping) else {f"{parents}{key}": value}
    return flat


def format_setting(value: Any) -> str:
    """Returns a setting as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _draw_all(name: str, logged: Sequence[Mapping[str, Points]], runs: Sequence[RunSummary]) -> str:
    return draw_curves([(run.name, curves.get(name, [])) for run, curves in zip(runs, logged, strict=True)])
