"""A comparison pairs by case, claims no more than its interval, and refuses what cannot be paired."""

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


def test_the_difference_is_that_of_the_means(tmp_path):
    rng = np.random.default_rng(0)
    one, other = scores(rng), scores(rng)
    rows = compare(evaluation(tmp_path / "a", one), evaluation(tmp_path / "b", other))
    assert [r.label for r in rows] == ["a", "b", "all labels"]
    for row in rows:
        assert row.gap.estimate == pytest.approx(row.first - row.second)
        assert row.gap.low <= row.gap.estimate <= row.gap.high
    assert rows[-1].first == pytest.approx(np.mean(list(one.values())))


def test_a_steady_gain_is_called_one_and_noise_is_not(tmp_path):
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
def test_of_distances_the_smaller_is_the_better(tmp_path, metric, better):
    base = scores(np.random.default_rng(0))
    more = {key: value + 0.05 for key, value in base.items()}
    first, second = evaluation(tmp_path / "a", more, metric), evaluation(tmp_path / "b", base, metric)
    row = compare(first, second, metric)[-1]
    assert row.verdict("x", "y") == f"{better} is better" and row.gap.estimate == pytest.approx(0.05)


def test_cases_join_on_their_id_and_not_on_their_place(tmp_path):
    base = scores(np.random.default_rng(0))
    turned = dict(reversed(base.items()))
    rows = compare(evaluation(tmp_path / "a", base), evaluation(tmp_path / "b", turned))
    assert all(row.gap.estimate == 0 for row in rows)


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


def test_two_patients_prove_nothing(tmp_path):
    few = {key: value for key, value in scores(np.random.default_rng(0)).items() if key[0][:2] in ("00", "01")}
    better = {key: value + 0.3 for key, value in few.items()}
    row = compare(evaluation(tmp_path / "a", better), evaluation(tmp_path / "b", few))[-1]
    assert row.gap.low > 0 and row.verdict("x", "y") == "no difference shown"
