"""Lesion scores read back as written, and their scores and differences equal those of the metrics."""

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.fewshot import lesion_scores as lesion_scores
from medssl.metrics import lesions
from medssl.metrics.detection_scores import CaseDetections
from medssl.metrics.lesions import ScanMatches


def make_detections(seed, count=12, skill=0.0):
    """Random scans of six patients; some have no lesion, some no candidate."""
    draw = np.random.default_rng(seed)
    cases = []
    for n in range(count):
        num_lesions, num_candidates = n % 3, int(draw.integers(0, 5))
        overlap = draw.random((num_candidates, num_lesions))
        scan = ScanMatches(
            draw.random(num_candidates) + skill * overlap.max(1, initial=0), draw.uniform(4, 20, num_lesions), overlap
        )
        cases.append(CaseDetections(f"case{n}", f"P{n // 2}", scan, scan))
    return cases


def write_and_read_scores(folder, cases):
    folder.mkdir()
    lesion_scores.write_lesion_scores(folder, {"nodule": cases})
    return lesion_scores.read_lesion_scores(folder, "nodule")


@pytest.mark.parametrize("metric", lesion_scores.METRICS)
def test_stored_scores_equal_those_of_the_detections(tmp_path, metric):
    cells = [make_detections(seed) for seed in (0, 1)]
    stored = [write_and_read_scores(tmp_path / str(n), cell) for n, cell in enumerate(cells)]
    by = {
        "sensitivity at 1 false alarm": lambda c: lesions.sensitivity_at([o.picai for o in c], [1.0])[0],
        "AUROC": lambda c: lesions.auroc(
            np.array([o.picai.has_lesion for o in c]), np.array([o.by_overlap.scores.max(initial=0) for o in c])
        ),
    }
    wanted = np.mean([by.get(metric, lambda c: lesions.cpm([o.luna for o in c]))(cell) for cell in cells])
    interval = lesion_scores.score_interval(metric, stored)
    assert (
        interval.estimate == pytest.approx(wanted)
        and interval.low <= wanted <= interval.high
        and interval.low < interval.high
    )


def test_an_arm_is_no_better_than_itself_and_better_than_chance(tmp_path):
    chance = [write_and_read_scores(tmp_path / f"a{n}", make_detections(n, 40)) for n in range(3)]
    skilled = [write_and_read_scores(tmp_path / f"b{n}", make_detections(n, 40, skill=3.0)) for n in range(3)]
    same, certain = lesion_scores.compare_arms("CPM", chance, chance)
    assert (same.estimate, same.low, same.high, certain) == (0, 0, 0, 1)
    better, p = lesion_scores.compare_arms("CPM", skilled, chance)
    worse, q = lesion_scores.compare_arms("CPM", chance, skilled)
    assert better.low > 0 and p < 0.05
    assert worse.estimate == pytest.approx(-better.estimate) and q == p


def test_cells_that_tested_other_cases_are_not_compared(tmp_path):
    with pytest.raises(BadInput, match="tested other cases"):
        lesion_scores.score_interval(
            "CPM",
            [
                write_and_read_scores(tmp_path / "a", make_detections(0)),
                write_and_read_scores(tmp_path / "b", make_detections(0, 10)),
            ],
        )


def test_a_cell_tested_without_lesions_states_how_to_test_it_again(tmp_path):
    with pytest.raises(BadInput, match=r"delete .*cases\.csv, and the cell is tested again"):
        lesion_scores.read_lesion_scores(tmp_path, "nodule")
