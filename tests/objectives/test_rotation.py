"""Rotations form a group, are exact, and a crop without content cannot tell them apart."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.self_supervision.rotations import as_matrix, find_shape_preserving, invert, list_rotations, rotate
from medssl.objectives.known_changes.rotation import Config, Rotation
from tests.objectives.test_contract import crops

ROTATIONS = list_rotations()
CUBE = torch.rand(2, 5, 5, 5, generator=torch.Generator().manual_seed(0))


def objective(**settings):
    torch.manual_seed(0)
    return Rotation(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_the_rotations_are_a_group_of_24():
    matrices = [as_matrix(r) for r in ROTATIONS]
    known = {m.tobytes() for m in matrices}
    assert len(known) == 24 and (matrices[0] == np.eye(3)).all()
    assert all((a @ b).tobytes() in known for a, b in product(matrices, matrices))


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_rotation_is_undone_by_its_inverse_and_moves_voxels_as_its_matrix_says(rotation):
    turned = rotate(CUBE, rotation)
    assert torch.equal(rotate(turned, invert(rotation)), CUBE)
    assert (as_matrix(invert(rotation)) == as_matrix(rotation).T).all()
    index = np.array([1, 0, 3])
    i, j, k = as_matrix(rotation) @ (index - 2) + 2
    assert torch.equal(turned[:, i, j, k], CUBE[:, *index])


def test_axes_of_other_length_or_spacing_are_not_exchanged():
    assert find_shape_preserving(ROTATIONS, (8, 8, 8), (1.0, 1.0, 1.0)).sum() == 24
    for shape, spacing_mm in [((8, 8, 12), (1.0, 1.0, 1.0)), ((8, 8, 8), (1.0, 1.0, 3.0))]:
        possible = find_shape_preserving(ROTATIONS, shape, spacing_mm)
        assert possible.sum() == 8
        assert all(abs(as_matrix(r)[2, 2]) == 1 for r, p in zip(ROTATIONS, possible, strict=True) if p)


def test_impossible_rotations_are_never_drawn_nor_predicted():
    rotation, x = objective(num_rotations=8), crops(1).x.flatten(0, 1)
    possible = rotation.find_possible(x, (1.0, 1.0, 1.0))
    target = rotation.draw_rotations(len(x), possible, torch.Generator().manual_seed(0))
    assert possible[target].all() and all(len(set(row)) == 8 for row in target.tolist())
    assert (rotation.classify(x, possible).softmax(1)[:, ~possible] == 0).all()


def test_a_constant_crop_stays_at_chance():
    rotation = objective(num_rotations=8)
    x = torch.full((2, 2, 16, 16, 16), 0.5)
    possible = rotation.find_possible(x, (1.0, 1.0, 1.0))
    turned = torch.stack([rotate(x[0], r) for r in ROTATIONS])
    logits = rotation.classify(turned, possible)
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(24))
    assert loss > math.log(24) - 1e-5


def test_too_few_possible_rotations_are_refused():
    x = torch.zeros(1, 2, 16, 24, 32)
    with pytest.raises(BadInput, match=r"num_rotations=8: crops \(16, 24, 32\).* keep their shape in 4 rotations"):
        objective(num_rotations=8).find_possible(x, (1.0, 1.0, 1.0))
