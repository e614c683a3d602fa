"""Windows are pooled as training crops are, and each sentence finds the window that it fits."""

import numpy as np

from medssl.data.ingest.read_source import ScanRef
from medssl.retrieval.prompts import Prompts, pool_windows, score_scans
from medssl.volume import Volume


def test_windows_overlap_by_half_and_reach_the_end():
    features = np.random.default_rng(0).normal(size=(3, 7, 4, 2)).astype(np.float32)
    rows, centres = pool_windows(features, (4, 4, 4))
    assert rows.shape == (3, 6) and centres.tolist() == [[1.5, 1.5, 0.5], [3.5, 1.5, 0.5], [4.5, 1.5, 0.5]]
    part = features[:, 3:7]
    np.testing.assert_allclose(rows[2], [*part.mean((1, 2, 3)), *part.max((1, 2, 3))], rtol=1e-5)


def test_a_window_larger_than_the_map_is_the_map():
    features = np.ones((2, 3, 3, 3), np.float32)
    rows, centres = pool_windows(features, (9, 9, 9))
    assert rows.tolist() == [[1, 1, 1, 1]] and centres.tolist() == [[1, 1, 1]]


def test_the_score_is_that_of_the_best_window_less_the_opposite():
    features = np.zeros((2, 8, 2, 2), np.float32)
    features[0, :4], features[1, 4:] = 1, 1  # the first half shows the first thing, the second half the other
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    scan = ScanRef("a", "a", None, lambda: Volume(features, affine, "a.u."))
    prompts = Prompts(("first", "second"), np.eye(2, dtype=np.float32), np.array([1.0, 0.0], np.float32))
    ((first, second),) = score_scans([scan], lambda volume: volume, (4, 2, 2), lambda rows: rows[:, :2], prompts)
    assert first.score == 0 and second.score == 1, "a sentence less itself is 0"
    assert second.place_mm == (11.0, 1.0, 1.0)  # the middle of cells 4 to 7
    np.testing.assert_allclose(second.mean_score, (-1 + 0 + 1) / 3, atol=1e-6)
