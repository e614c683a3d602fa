"""A table compares arms over patients and seeds, and says nothing that too few seeds could have shown."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medssl.fewshot import report
from medssl.fewshot.cell import SweepCell, select_pictures
from medssl.fewshot.table import build_table
from medssl.files import write_text
from medssl.metrics.case_scores import CaseScore, to_csv
from medssl.training.finetune_config import FinetuneConfig

ARMS = {"scratch": 0.5, "alike": 0.5, "good": 0.6}


def make_cells(folder: Path, seeds: int, patients: int = 12) -> list[SweepCell]:
    """Returns cells of three arms whose Dice varies by patient and by seed."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.05, patients)
    cells = []
    for seed in range(seeds):
        for arm, level in ARMS.items():
            scores = level + hard + rng.normal(0, 0.01) + rng.normal(0, 0.02, patients)
            rows = [CaseScore(f"c{n}", f"p{n}", "organ", s, *[0.0] * 6, "") for n, s in enumerate(scores.tolist())]
            settings = FinetuneConfig(run=folder / "none", manifest=folder / "none")
            cell = SweepCell(arm, 2, seed, folder / f"{arm}-k2-s{seed}", settings, 2.0)
            write_text(cell.folder / "cases.csv", to_csv(rows))
            cells.append(cell)
    return cells


@pytest.mark.parametrize("seeds", [1, 4, 5])
def test_no_verdict_is_given_below_five_seeds(tmp_path, seeds):
    rows = {row.arm: row for row in build_table(make_cells(tmp_path, seeds), "scratch")}
    assert rows["good"].difference.low > 0
    assert rows["good"].verdict("scratch") == ("better than scratch" if seeds == 5 else "no verdict below 5 seeds")
    assert rows["scratch"].verdict("scratch") == ""


def test_p_values_are_adjusted_for_the_comparisons_of_a_table(tmp_path):
    rows = {row.arm: row for row in build_table(make_cells(tmp_path, 5), "scratch")}
    assert rows["good"].p_holm == pytest.approx(2 * rows["good"].p) and rows["alike"].p_holm == rows["alike"].p
    table = list(csv.DictReader(io.StringIO(report.to_csv(list(rows.values())))))
    assert float(table[2]["p_holm"]) == pytest.approx(rows["good"].p_holm, rel=1e-3)
    assert table[0]["p"] == table[0]["p_holm"] == ""


def test_every_seed_is_a_dot_and_a_column(tmp_path):
    rows = build_table(make_cells(tmp_path, 3), "scratch")
    assert [len(row.by_seed) for row in rows] == [3, 3, 3]
    assert rows[0].score.estimate == pytest.approx(np.mean(rows[0].by_seed))
    dots = [line for line in report.draw_curve(rows).axes[0].lines if line.get_marker() == "o"]
    assert [sorted(line.get_ydata()) for line in dots] == [sorted(row.by_seed) for row in rows]
    table = list(csv.DictReader(io.StringIO(report.to_csv(rows))))
    assert [float(score) for score in table[1]["score_by_seed"].split()] == pytest.approx(rows[1].by_seed, abs=1e-4)


def test_a_curve_of_rows_without_seeds_has_no_dots(tmp_path):
    rows = [replace(row, by_seed=()) for row in build_table(make_cells(tmp_path, 3), "scratch")]
    axes = report.draw_curve(rows).axes[0]
    assert all(not len(line.get_ydata()) for line in axes.lines if line.get_marker() == "o")
    assert axes.get_ylim()[0] > 0


def test_intervals_of_scores_stay_between_zero_and_one(tmp_path):
    cells = make_cells(tmp_path, 2)
    for cell in cells:
        text = (cell.folder / "cases.csv").read_text().splitlines()
        rows = [row.split(",") for row in text]
        level = 0.6 + 0.39 * cell.seed
        write_text(
            cell.folder / "cases.csv", "\n".join([text[0], *(",".join([*r[:3], str(level), *r[4:]]) for r in rows[1:])])
        )
    assert all(0 <= row.score.low < row.score.high <= 1 for row in build_table(cells, "scratch"))


def test_the_median_and_the_worst_case_are_shown():
    rows = [CaseScore(f"c{n}", f"p{n}", "organ", s, *[0.0] * 6, "") for n, s in enumerate((0.9, 0.1, 0.5))]
    pictures = {f"c{n}": bytes([n]) for n in range(3)}
    assert select_pictures(rows, pictures) == {"median": bytes([2]), "worst": bytes([1])}


def test_regret_counts_the_seeds_below_the_reference(tmp_path):
    cells = make_cells(tmp_path, 5)
    rows = {row.arm: row for row in build_table(cells, "scratch")}
    below = sum(a < b for a, b in zip(rows["alike"].by_seed, rows["scratch"].by_seed, strict=True))
    assert 0 < below < 5 and rows["alike"].regret == below / 5 and rows["good"].regret == 0
    assert rows["scratch"].regret is None
    assert f"{below} of 5" in report.format_row(rows["alike"], "scratch")
    assert len(report.format_row(rows["alike"], "scratch")) == len(report.column_titles(rows["alike"], "scratch"))
    table = {row["arm"]: row for row in csv.DictReader(io.StringIO(report.to_csv(list(rows.values()))))}
    assert float(table["alike"]["regret"]) == pytest.approx(below / 5) and table["scratch"]["regret"] == ""
    pairs = [cell for cell in cells if cell.arm != "scratch" or cell.seed < 2]
    assert {row.arm: row for row in build_table(pairs, "scratch")}["alike"].paired_seeds == 2
