"""A comparison pairs scores by case, states only significant differences, and refuses unpaired cases."""

import csv

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.evaluation.compare import compare


def evaluation(folder, dice: dict[tuple[str, str], float], metric="dice"):
    folder.mkdir()
    with (folder / "cases.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["case", "patient", "label", metric])
        writer.writerows([case, f"p-{case[:-1]}", label, value] for (case, label), value in dice.items())
    return folder


def scores(rng, shift=0.0) -> dict[tuple[str, str], float]:
    return {
        (f"{n:02d}{side}", label): float(rng.uniform(0.4, 0.8)) + shift
        for n in range(12)
        for side in "lr"
        for label in "ab"
    }


def test_difference_equals_that_of_the_means(tmp_path):
    rng = np.random.default_rng(0)
    first, second = scores(rng), scores(rng)
    rows = compare(evaluation(tmp_path / "a", first), evaluation(tmp_path / "b", second))
    assert [r.label for r in rows] == ["a", "b", "all labels"]
    for row in rows:
        assert row.difference.estimate == pytest.approx(row.first - row.second)
        assert row.difference.low <= row.difference.estimate <= row.difference.high
    assert rows[-1].first == pytest.approx(np.mean(list(first.values())))


def test_consistent_gain_is_significant_and_noise_is_not(tmp_path):
    base = scores(np.random.default_rng(0))
    better = {key: value + 0.05 for key, value in base.items()}
    first, second = evaluation(tmp_path / "a", better), evaluation(tmp_path / "b", base)
    assert compare(first, second)[-1].verdict("x", "y") == "x is better"
    assert compare(second, first)[-1].verdict("x", "y") == "y is better"
    noisy = evaluation(
        tmp_path / "c", {k: v + float(np.random.default_rng(n).normal(0, 0.2)) for n, (k, v) in enumerate(base.items())}
    )
    assert compare(noisy, second)[-1].verdict("x", "y") == "no difference shown"


@pytest.mark.parametrize(
    ("metric", "better"), [("dice", "x"), ("nsd", "x"), ("hd95_mm", "y"), ("volume_error_ml", "y")]
)
def test_lower_distances_are_better(tmp_path, metric, better):
    base = scores(np.random.default_rng(0))
    higher = {key: value + 0.05 for key, value in base.items()}
    first, second = evaluation(tmp_path / "a", higher, metric), evaluation(tmp_path / "b", base, metric)
    row = compare(first, second, metric)[-1]
    assert row.verdict("x", "y") == f"{better} is better" and row.difference.estimate == pytest.approx(0.05)


def test_cases_are_paired_by_id(tmp_path):
    base = scores(np.random.default_rng(0))
    reversed_order = dict(reversed(base.items()))
    rows = compare(evaluation(tmp_path / "a", base), evaluation(tmp_path / "b", reversed_order))
    assert all(row.difference.estimate == 0 for row in rows)


def test_other_cases_or_another_metric_are_refused(tmp_path):
    base = scores(np.random.default_rng(0))
    first = evaluation(tmp_path / "a", base)
    second = evaluation(tmp_path / "b", {k: v for k, v in base.items() if k[0] != "03l"})
    with pytest.raises(BadInput, match="03l a"):
        compare(first, second)
    with pytest.raises(BadInput, match="has no 'nsd'"):
        compare(first, first, "nsd")
    with pytest.raises(BadInput, match="no evaluation here"):
        compare(first, tmp_path / "none")


def test_two_patients_are_never_significant(tmp_path):
    subset = {key: value for key, value in scores(np.random.default_rng(0)).items() if key[0][:2] in ("00", "01")}
    better = {key: value + 0.3 for key, value in subset.items()}
    row = compare(evaluation(tmp_path / "a", better), evaluation(tmp_path / "b", subset))[-1]
    assert row.difference.low > 0 and row.verdict("x", "y") == "no difference shown"
