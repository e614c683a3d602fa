"""The terms of VICReg equal the formulas of the paper, computed by loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.objectives.contrastive.vicreg import _off_diagonal_covariance, _variance_hinge


def make_embeddings(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mixing / width


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 7), st.integers(2, 5), st.integers(0, 10**6))
def test_the_terms_are_those_of_the_paper(rows, width, seed):
    z = make_embeddings(rows, width, seed)
    mean = [sum(float(row[j]) for row in z) / rows for j in range(width)]
    covariance = [
        [sum(float(r[i] - mean[i]) * float(r[j] - mean[j]) for r in z) / (rows - 1) for j in range(width)]
        for i in range(width)
    ]
    hinge = sum(max(0.0, 1 - math.sqrt(covariance[j][j] + 1e-4)) for j in range(width)) / width
    squares = sum(covariance[i][j] ** 2 for i in range(width) for j in range(width) if i != j) / width
    assert float(_variance_hinge(z)) == pytest.approx(hinge, abs=1e-9)
    assert float(_off_diagonal_covariance(z)) == pytest.approx(squares, rel=1e-9, abs=1e-12)
