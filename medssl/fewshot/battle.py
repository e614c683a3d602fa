"""Ranks encoders and their starts over several tasks, each of which is a sweep of few labels.

Goldblum et al., "Battle of the backbones: a large-scale comparison of pretrained models across computer vision tasks"
(2023), https://arxiv.org/abs/2310.19909. Deviation: arms are ranked for each seed, so that a rank has an interval.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator
from scipy.stats import rankdata

from medssl import config
from medssl.csv_text import neutralize
from medssl.errors import BadInput
from medssl.fewshot.config import Arm, Sweep
from medssl.fewshot.report import select_main_rows
from medssl.fewshot.table import TableRow
from medssl.files import write_text
from medssl.metrics.statistics import Interval, mean_interval
from medssl.render.report import NOTICE
from medssl.render.templates import render_template
from medssl.settings import Settings

TEMPLATE = Path(__file__).with_name("battle_report.html")


class Battle(Settings):
    """Encoders x starts x tasks; every pair of an encoder and a start is an arm of the sweep of each task."""

    out: Path = Field(description="folder of the ranks, and of a sweep for each task")
    encoders: dict[str, dict[str, Any]] = Field(
        min_length=1, description="changes to pretraining and finetuning of each encoder, as encoder.name: convnext"
    )
    starts: dict[str, Arm] = Field(min_length=1, description="how each encoder starts: arms of `medssl fewshot`")
    tasks: dict[str, dict[str, Any]] = Field(
        min_length=1, description="keys of `medssl fewshot` for each task, as manifest, finetune_config, num_labelled"
    )
    shared: dict[str, Any] = Field({}, description="keys of `medssl fewshot` that all tasks have unless theirs differ")
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=1, description="seeds of label subset and training")

    @model_validator(mode="after")
    def _check_names(self) -> "Battle":
        for name in self.tasks:
            if Path(name).name != name:
                raise ValueError(f"tasks.{name}: is no name of a folder, which the sweep of the task gets")
        fixed = [name for name, arm in self.starts.items() if arm.pretrained]
        if fixed and len(self.encoders) > 1:
            raise ValueError(
                f"starts.{fixed[0]}.pretrained: is a run of one encoder; give pretrain, with which each is pretrained"
            )
        return self

    def make_sweeps(self) -> dict[str, Sweep]:
        """Returns the sweep of each task, in a folder of its name.

        Raises:
            BadInput: A key of a task is wrong.
        """
        arms = dict(self._name_arms())
        fixed = {"arms": arms, "reference": next(iter(arms)), "seeds": self.seeds}
        sweeps = {}
        for name, keys in self.tasks.items():
            values = self.shared | keys
            if taken := sorted({"out", *fixed} & set(values)):
                raise BadInput(f"tasks.{name}: {', '.join(taken)}: is set by the battle; leave it out")
            sweeps[name] = config.check(values | fixed | {"out": self.out / name}, Sweep, f"tasks.{name}")
        return sweeps

    def _name_arms(self) -> list[tuple[str, Arm]]:
        arms = []
        for (encoder, changes), (start, arm) in product(self.encoders.items(), self.starts.items()):
            other = arm.equal_compute_with and f"{encoder}, {arm.equal_compute_with}"
            update: dict[str, Any] = {"changes": changes | arm.changes, "equal_compute_with": other}
            if arm.pretrain:
                update["pretraining"] = changes | arm.pretraining
            arms.append((f"{encoder}, {start}", arm.model_copy(update=update)))
        return arms


@dataclass(frozen=True)
class ArmRank:
    """The mean rank of an arm, 1 for the best, with its 95 % interval over tasks and seeds, and its scores.

    Args:
        arm: The name of the arm.
        rank: The mean over seeds, tasks and numbers of labels.
        scores: The mean score by task and number of labels.
    """

    arm: str
    rank: Interval
    scores: Mapping[str, float]


def rank_arms(tables: Mapping[str, Sequence[TableRow]]) -> list[ArmRank]:
    """Ranks arms by their main metric, separately for each task, number of labels and seed; the best comes first.

    Columns in which an arm lacks a seed are left out, since ranks among fewer arms mean something else.

    Args:
        tables: The table of the sweep of each task.

    Raises:
        BadInput: No column has all arms and seeds.
    """
    rows = {(task, row.num_labelled, row.arm): row for task in tables for row in select_main_rows(tables[task])}
    arms, num_seeds = list(dict.fromkeys(arm for *_, arm in rows)), max((row.seeds for row in rows.values()), default=0)
    columns = [
        (task, count)
        for task, count in dict.fromkeys((task, count) for task, count, _ in rows)
        if all((task, count, arm) in rows and rows[task, count, arm].seeds == num_seeds for arm in arms)
    ]
    if not columns:
        raise BadInput("no task has scores of all arms and seeds; the reports of the tasks name the cells that failed")
    scores = np.array([[rows[task, count, arm].by_seed for task, count in columns] for arm in arms])
    ranks: Float[np.ndarray, "arms columns seeds"] = rankdata(-scores, axis=0)
    tasks = [task for task, _ in columns]
    ranked = [
        ArmRank(
            arm,
            mean_interval(ranks[n].T, tasks).clip(1, len(arms)),
            {f"{task}, {count} labelled": float(scores[n, c].mean()) for c, (task, count) in enumerate(columns)},
        )
        for n, arm in enumerate(arms)
    ]
    return sorted(ranked, key=lambda row: row.rank.estimate)


def write_ranks(out: Path, ranks: Sequence[ArmRank], tasks: Sequence[str]) -> None:
    """Writes ranks.csv and report.html into the folder of the battle."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "rank", "rank_low", "rank_high", *map(neutralize, ranks[0].scores)])
    for row in ranks:
        numbers = row.rank.estimate, row.rank.low, row.rank.high, *row.scores.values()
        writer.writerow([neutralize(row.arm), *(f"{number:.4f}" for number in numbers)])
    write_text(out / "ranks.csv", text.getvalue())
    rows = [format_rank(row) for row in ranks]
    html = render_template(
        TEMPLATE, title=out.name, notice=NOTICE, columns=column_titles(ranks[0]), rows=rows, tasks=tasks
    )
    write_text(out / "report.html", html)


def column_titles(row: ArmRank) -> tuple[str, ...]:
    """Returns the column titles of the table of ranks."""
    return "arm", "mean rank [95 %]", *row.scores


def format_rank(row: ArmRank) -> tuple[str, ...]:
    """Returns the cells of a row, in the order of `column_titles`."""
    return row.arm, row.rank.format(".2f"), *(f"{score:.3f}" for score in row.scores.values())
