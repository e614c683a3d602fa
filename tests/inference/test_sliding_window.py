"""The sliding window against MONAI's, and what it must never do."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from medssl.inference.sliding_window import slabs, slide

sizes = st.tuples(*[st.integers(1, 13)] * 3)
crops = st.tuples(*[st.integers(2, 7)] * 3)


def two_channels(x):
    """Depends on where in the window a voxel lies, so that wrong weights or positions show."""
    ramp = torch.arange(x.shape[-1], dtype=torch.float32)
    return torch.cat([x.mean(1, keepdim=True) * ramp, x.amax((2, 3, 4), keepdim=True)[:, :1] - x[:, :1]], 1)


def doubled(x):
    return 2 * x


@settings(max_examples=40, deadline=None)
@given(sizes, crops, st.sampled_from([0.0, 0.25, 0.5, 0.7]), st.integers(1, 5), st.integers(0, 9))
def test_it_equals_monai_on_the_same_settings(size, crop, overlap, batch, seed):
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed))
    ours = slide(x, two_channels, crop, overlap, batch)
    theirs = sliding_window_inference(x[None], crop, 2, two_channels, overlap=overlap, mode="gaussian")[0]
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(sizes, crops)
def test_a_translation_equivariant_network_is_reproduced(size, crop):
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(slide(x, doubled, crop), 2 * x, atol=1e-6)


def test_the_input_is_never_overwritten():
    x = torch.randn(1, 9, 9, 9)
    array = x.numpy().copy()
    kept = x.clone()
    slide(x, lambda w: w.mul_(0).add_(3), (4, 4, 4), batch=1)
    slide(array, lambda w: w.mul_(0).add_(3), (16, 16, 16), batch=1)
    assert torch.equal(x, kept)
    assert np.array_equal(array, kept.numpy())


def test_read_only_and_flipped_arrays_are_read():
    x = np.random.default_rng(0).random((1, 6, 7, 8), np.float32)[:, ::-1]
    x.flags.writeable = False
    assert np.allclose(slide(x, doubled, (4, 4, 4)).numpy(), 2 * x)


def test_half_precision_answers_are_summed_in_full_precision():
    x = torch.rand(1, 12, 12, 12)
    said = slide(x.half(), lambda w: w.half(), (5, 5, 5), 0.6)
    assert said.dtype == torch.float32
    assert torch.allclose(said, x.half().float(), atol=1e-6)


def test_slabs_stream_with_a_buffer_of_one_crop_along_i():
    heights = [slab.shape[1] for slab in slabs(torch.rand(1, 40, 6, 6), doubled, (8, 4, 4))]
    assert sum(heights) == 40
    assert max(heights) <= 8


def test_a_slab_comes_before_later_windows_are_run():
    seen = []
    stream = slabs(torch.rand(1, 40, 4, 4), lambda w: seen.append(len(w)) or w, (8, 4, 4))
    next(stream)
    assert sum(seen) == 1


@pytest.mark.parametrize("fault", [lambda w: w.clamp(min=1), torch.ones_like])
def test_a_wrong_weighting_would_be_seen(fault, monkeypatch):
    from medssl.inference import sliding_window as sliding

    right = sliding._gaussian
    x = torch.randn(1, 9, 9, 9)
    good = slide(x, two_channels, (4, 4, 4))
    monkeypatch.setattr(sliding, "_gaussian", lambda crop: fault(right(crop)))
    assert not torch.allclose(slide(x, two_channels, (4, 4, 4)), good, atol=1e-5)
