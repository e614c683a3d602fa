"""Scores of groups of patients: right means, intervals that cover, and differences that are not invented."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from medssl.cli import run
from medssl.data.ingest.reference_labels import References
from medssl.evaluation.evaluate import evaluate
from medssl.evaluation.groups import MEAN_OF_LABELS, compare_groups
from medssl.evaluation.report import write_report
from medssl.metrics.case_scores import CaseScore
from medssl.predictions_folder import read_index


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_scores(dice_of_patient, labels=("organ",), cases_each=1):
    return [
        CaseScore(f"c{p}-{n}", f"p{p}", label, dice, *[0.0] * 6, "")
        for p, dice in enumerate(dice_of_patient)
        for n in range(cases_each)
        for label in labels
    ]


def group_by_patient(rows, first):
    return {row.case: "A" if int(row.patient[1:]) < first else "B" for row in rows}


def test_a_difference_is_that_of_welch(rng):
    dice = rng.uniform(0.4, 0.9, 12)
    rows = make_scores(dice, cases_each=2)
    first, second = compare_groups(rows, group_by_patient(rows, 5), "site")
    other = stats.ttest_ind(dice[:5], dice[5:], equal_var=False)
    assert (first.cases, first.patients, second.patients) == (10, 5, 7)
    assert first.dice.estimate == pytest.approx(dice[:5].mean())
    assert first.difference.estimate == pytest.approx(dice[:5].mean() - dice[5:].mean())
    assert first.p == pytest.approx(other.pvalue) and second.difference.estimate == -first.difference.estimate
    assert first.p_holm == pytest.approx(min(1, 2 * first.p))


def test_equal_groups_rarely_differ_and_unlike_ones_do(rng):
    """A difference is claimed in at most 7 % of 400 pairs of equal groups of different sizes, at a level of 5 %."""
    claims = 0
    for _ in range(400):
        rows = make_scores(rng.normal(0.7, 0.1, 20))
        claims += compare_groups(rows, group_by_patient(rows, 6), "site")[0].p < 0.05
    assert claims <= 28
    rows = make_scores(np.r_[rng.normal(0.8, 0.03, 8), rng.normal(0.6, 0.03, 8)])
    assert all(score.is_different for score in compare_groups(rows, group_by_patient(rows, 8), "site"))


def test_the_mean_of_labels_comes_first_and_small_groups_have_no_difference():
    rows = make_scores([0.5, 0.6, 0.7], ("organ", "lesion"))
    scores = compare_groups(rows, group_by_patient(rows, 1), "site")
    assert [(s.label, s.group) for s in scores[:2]] == [(MEAN_OF_LABELS, "A"), (MEAN_OF_LABELS, "B")]
    assert len(scores) == 6 and all(s.difference is None and s.p_holm is None for s in scores)


def test_groups_without_any_variation_are_compared():
    rows = make_scores([0.5, 0.5, 0.7, 0.7])
    first, _ = compare_groups(rows, group_by_patient(rows, 2), "site")
    assert first.difference.estimate == pytest.approx(-0.2) and first.p == 0


def test_the_report_holds_a_table_and_a_picture_of_groups(predictions, references, tmp_path):
    evaluations = list(evaluate(read_index(predictions), References.read(references), 2.0))
    groups = {e.case: "A" if n else "=B" for n, e in enumerate(evaluations)}
    index, labels = read_index(predictions), References.read(references)
    report = write_report(index, labels, evaluations, tmp_path / "out", 2.0, {"site": groups})
    rows = list(csv.DictReader((tmp_path / "out" / "groups.csv").read_text().splitlines()))
    assert [(row["group"], row["patients"]) for row in rows[:2]] == [("'=B", "1"), ("A", "2")]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["groups"][1]["dice"]["estimate"] == pytest.approx(float(rows[1]["dice"]))
    with Image.open(tmp_path / "out" / "figures" / "groups.png") as picture:
        assert picture.width > 300
    assert report.groups_to_table().row_count == len(rows)


def test_groups_of_a_folder_of_labels_are_refused(predictions, references, tmp_path, capsys):
    words = [str(predictions), "--labels", str(references), "--out", str(tmp_path / "out"), "--by", "site"]
    assert run("evaluate", words) == 2
    assert "groups need a store; give its manifest.csv with --labels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
