"""Tests which patches are hidden, and that a seed makes it reproducible."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.nn import masks


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.floats(0.1, 1))
def test_the_given_fraction_of_body_patches_is_hidden_and_no_air_is_visible(seed, ratio, filled):
    body = torch.rand(3, 1, 4, 3, 4, generator=make_generator(seed)) < filled
    visible = masks.sample_visible(body, ratio, make_generator(seed))
    for b, k in zip(body, visible, strict=True):
        if b.sum() < 2:
            b = torch.ones_like(b)
        assert not (k & ~b).any()
        wanted = min(max(round((1 - ratio) * int(b.sum())), 1), int(b.sum()) - 1)
        assert abs(int(k.sum()) - wanted) <= 1
        assert 0 < k.sum() < b.sum()


def test_a_range_gives_each_volume_its_own_fraction_within_it():
    visible = masks.sample_visible(torch.ones(40, 1, 6, 6, 6, dtype=torch.bool), (0.6, 0.9), make_generator())
    hidden = 1 - visible.flatten(1).float().mean(1)
    assert hidden.min() >= 0.595 and hidden.max() <= 0.905 and hidden.std() > 0.05


def test_a_seed_decides_the_mask():
    body = torch.ones(2, 1, 4, 4, 4, dtype=torch.bool)
    assert torch.equal(
        masks.sample_visible(body, 0.75, make_generator(1)), masks.sample_visible(body, 0.75, make_generator(1))
    )
    assert not torch.equal(
        masks.sample_visible(body, 0.75, make_generator(1)), masks.sample_visible(body, 0.75, make_generator(2))
    )


def test_each_patch_is_hidden_as_often_as_the_ratio_states():
    visible = masks.sample_visible(torch.ones(2000, 1, 2, 2, 4, dtype=torch.bool), 0.75, make_generator())
    assert torch.allclose(visible.float().mean(0), torch.tensor(0.25), atol=0.05)


def test_a_patch_is_body_if_any_channel_holds_more_than_air():
    x = torch.zeros(1, 2, 4, 4, 4)
    x[0, 1, 3, 0, 0] = 0.5
    body = masks.find_body_patches(x, (2, 2, 4))
    assert body.nonzero().tolist() == [[0, 0, 1, 0, 0]]


def test_generators_differ_in_training_repeat_in_evaluation_and_can_be_resumed():
    draws = masks.SeededGenerators(seed=3)
    first, second = draws().initial_seed(), draws().initial_seed()
    resumed = masks.SeededGenerators(seed=3)
    resumed.load_state_dict(draws.state_dict())
    assert first != second
    assert draws().initial_seed() == resumed().initial_seed()
    draws.eval()
    assert draws().initial_seed() == draws().initial_seed()


@pytest.mark.parametrize("seed", [0, 1])
def test_different_seeds_give_different_generators(seed):
    assert masks.SeededGenerators(seed)().initial_seed() != masks.SeededGenerators(seed + 1)().initial_seed()


@pytest.mark.parametrize(
    ("patch_mm", "spacing", "expected"),
    [
        (None, (1, 1, 5), (8, 8, 2)),
        (16, (1, 1, 5), (16, 16, 4)),
        (5, (1, 1, 5), (4, 4, 1)),
        (20, (2.5, 2.5, 10), (8, 8, 2)),
        (1000, (1, 1, 1), (48, 48, 12)),
    ],
)
def test_a_patch_in_mm_fits_levels_and_crop(patch_mm, spacing, expected):
    strides = ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert masks.choose_patch(patch_mm, spacing, strides, (48, 48, 12)) == expected


def test_air_is_shown_as_a_whole_if_asked():
    body = torch.rand(3, 1, 4, 4, 4, generator=make_generator()) < 0.5
    hidden, shown = (masks.sample_visible(body, 0.75, make_generator(1), show_air=s) for s in (False, True))
    assert torch.equal(shown, hidden | ~body)
