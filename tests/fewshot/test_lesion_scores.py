"""Lesion scores read back as written, and their scores and differences equal those of the metrics."""

import numpy as np
import pytest

from medssl.errors import BadInput
from medssl.fewshot import lesion_scores as found
from medssl.metrics import lesions
from medssl.metrics.detection_scores import CaseDetections
from medssl.metrics.lesions import ScanMatches


def detected(seed, count=12, skill=0.0):
    """Random scans of six patients; some have no lesion, some no candidate."""
    draw = np.random.default_rng(seed)
    cases = []
    for n in range(count):
        here, said = n % 3, int(draw.integers(0, 5))
        overlap = draw.random((said, here))
        scan = ScanMatches(draw.random(said) + skill * overlap.max(1, initial=0), draw.uniform(4, 20, here), overlap)
        cases.append(CaseDetections(f"case{n}", f"P{n // 2}", scan, scan))
    return cases


def kept(folder, cases):
    folder.mkdir()
    found.write_lesion_scores(folder, {"nodule": cases})
    return found.read_lesion_scores(folder, "nodule")


@pytest.mark.parametrize("metric", found.METRICS)
def test_what_was_kept_scores_as_what_was_found(tmp_path, metric):
    cells = [detected(seed) for seed in (0, 1)]
    mine = [kept(tmp_path / str(n), cell) for n, cell in enumerate(cells)]
    by = {"sensitivity at 1 false alarm": lambda c: lesions.sensitivity_at([o.picai for o in c], [1.0])[0]}
    wanted = np.mean([by.get(metric, lambda c: lesions.cpm([o.luna for o in c]))(cell) for cell in cells])
    told = found.score_interval(metric, mine)
    assert told.estimate == pytest.approx(wanted) and told.low <= wanted <= told.high and told.low < told.high


def test_an_arm_is_no_better_than_itself_and_better_than_chance(tmp_path):
    chance = [kept(tmp_path / f"a{n}", detected(n, 40)) for n in range(3)]
    skilled = [kept(tmp_path / f"b{n}", detected(n, 40, skill=3.0)) for n in range(3)]
    same, certain = found.compare_arms("CPM", chance, chance)
    assert (same.estimate, same.low, same.high, certain) == (0, 0, 0, 1)
    better, p = found.compare_arms("CPM", skilled, chance)
    worse, q = found.compare_arms("CPM", chance, skilled)
    assert better.low > 0 and p < 0.05
    assert worse.estimate == pytest.approx(-better.estimate) and q == p


def test_cells_that_tested_other_cases_are_not_compared(tmp_path):
    with pytest.raises(BadInput, match="tested other cases"):
        found.score_interval("CPM", [kept(tmp_path / "a", detected(0)), kept(tmp_path / "b", detected(0, 10))])


def test_a_cell_tested_before_lesions_were_asked_says_how_to_test_it_again(tmp_path):
    with pytest.raises(BadInput, match=r"delete .*cases\.csv, and the cell is tested again"):
        found.read_lesion_scores(tmp_path, "nodule")
