"""Intensity changes keep the range, the order and the anatomy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.transforms.intensity import perturb_intensity, warp_intensity


def seed_generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + n) for n in range(count)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_curve_is_monotone_from_zero_to_one(seed, strength):
    x = torch.linspace(0, 1, 301)
    y = warp_intensity(x, torch.Generator().manual_seed(seed), strength)
    assert (y.diff() >= -1e-6).all() and y[0].item() == pytest.approx(0, abs=1e-6)
    assert y[-1].item() == pytest.approx(1, abs=1e-6)
    if strength == 0:
        assert torch.allclose(x, y, atol=1e-4)


def test_curves_differ_between_seeds():
    x = torch.linspace(0, 1, 50)
    a, b = (warp_intensity(x, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert (a - b).abs().max() > 0.05


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_perturbation_keeps_the_range_and_strength_zero_changes_nothing(seed, strength):
    x = torch.rand(2, 2, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    y = perturb_intensity(x, seed_generators(len(x), seed), strength)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert torch.allclose(perturb_intensity(x, seed_generators(len(x), seed), 0.0), x, atol=1e-4)


def test_each_volume_is_perturbed_in_its_own_way():
    x = torch.linspace(0, 1, 64).reshape(1, 1, 4, 4, 4).expand(2, 1, 4, 4, 4)
    a, b = perturb_intensity(x, seed_generators(2), 1.0)
    assert (a - b).abs().max() > 0.05
