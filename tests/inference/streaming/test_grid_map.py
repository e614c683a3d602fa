"""The labels of a block are those of all classes, although a tile samples only the classes that can win in it."""

import numpy as np
import pytest

from medssl.inference.streaming.grid_map import GridMap
from medssl.volume import Volume


def make_probability(num_classes, shape, sharpness, common):
    """Class probabilities that change completely from voxel to voxel; the last class has `common` everywhere."""
    logits = np.random.default_rng(7).normal(0, sharpness, (num_classes - 1, *shape))
    p = np.exp(logits)
    p = np.concatenate([p / p.sum(0) * (1 - common), np.full((1, *shape), common)])
    return p.astype(np.float32)


@pytest.mark.parametrize("spacing_mm", [(0.4, 0.55, 0.8), (1.0, 1.0, 1.0), (2.1, 1.3, 1.7)])
@pytest.mark.parametrize(("sharpness", "common"), [(1, 0.0), (20, 0.0), (90, 0.4)])
def test_no_class_that_wins_anywhere_is_left_out(spacing_mm, sharpness, common):
    working = Volume(np.zeros((18, 17, 16), np.float32), np.eye(4), "a.u.")
    shape = tuple(int(15 / step) for step in spacing_mm)
    scan = Volume(np.zeros(shape, np.int16), np.diag([*spacing_mm, 1]), "HU")
    p = make_probability(25, working.shape, sharpness, common)
    expected = Volume(p, working.affine, "probability").resample_to(scan, order=1, fill=None).voxels
    grid_map = GridMap.between(working, scan)
    rows = np.ascontiguousarray(p.transpose(0, 3, 2, 1))
    for out, source in grid_map.iterate_blocks():
        block = grid_map.decide(out, source, rows[:, source], rows[0, source], needs_doubt=False)
        every_class = expected[..., out].transpose(0, 3, 2, 1)
        second, best = np.sort(every_class, axis=0)[-2:]
        is_clear = best - second > 1e-6
        assert is_clear.mean() > 0.99
        assert np.array_equal(block.labels[is_clear], every_class.argmax(0)[is_clear])
        assert np.abs(block.foreground - (1 - every_class[0])).max() < 1e-6
