"""Slices within 0.01 mm of each other and of one orientation share a position, whatever the others are."""

from dataclasses import replace

import numpy as np
import pytest

from medssl.io.dicom import reader
from medssl.io.dicom.geometry import split_volumes
from tests.helpers.dicom_phantom import make_slices, save


def number_one_by_one(frames):
    """The number of the first earlier slice at the same place, counted anew for each place."""
    firsts, numbers = [], []
    for frame in frames:
        number = next((n for n, first in enumerate(firsts) if split_volumes._is_same_place(frame, first)), len(firsts))
        if number == len(firsts):
            firsts.append(frame)
        numbers.append(number)
    return numbers


@pytest.mark.parametrize("step_mm", [0.004, 0.015, 0.03, 2.5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positions_are_numbered_like_one_by_one(tmp_path, step_mm, axis):
    save(make_slices(), tmp_path)
    (series,) = reader.read(tmp_path)
    random = np.random.default_rng(0)
    for count in (1, 2, 7, 40):
        steps = random.integers(0, 3 * count, count)
        shifts = np.zeros((count, 3))
        shifts[:, axis] = steps * step_mm
        positions = (shifts + series.frames[0].position).tolist()
        frames = [replace(series.frames[0], position=tuple(position)) for position in positions]
        assert split_volumes._number_positions(frames) == number_one_by_one(frames)
