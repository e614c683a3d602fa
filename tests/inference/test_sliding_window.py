"""Sliding-window inference equals that of MONAI, streams, and leaves its input unchanged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference as monai_inference

from medssl.errors import BadInput, InputWarning
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.sliding_window import sliding_window_inference, stream_slabs

sizes = st.tuples(*[st.integers(1, 13)] * 3)
crops = st.tuples(*[st.integers(2, 7)] * 3)


def infer(x, function, *args, **options):
    """Returns the result for a tensor and a function of torch."""
    return torch.from_numpy(sliding_window_inference(x.numpy(), TorchNetwork(function), *args, **options))


def two_channels(x):
    """A network whose output depends on the position in the window, to reveal wrong weights or positions."""
    ramp = torch.arange(x.shape[-1], dtype=torch.float32)
    return torch.cat([x.mean(1, keepdim=True) * ramp, x.amax((2, 3, 4), keepdim=True)[:, :1] - x[:, :1]], 1)


def double(x):
    return 2 * x


@settings(max_examples=40, deadline=None)
@given(sizes, crops, st.sampled_from([0.0, 0.25, 0.5, 0.7]), st.integers(1, 5), st.integers(0, 9))
def test_result_equals_monai(size, crop, overlap, batch, seed):
    x = torch.randn(2, *size, generator=torch.Generator().manual_seed(seed))
    result = infer(x, two_channels, crop, overlap, batch)
    expected = monai_inference(x[None], crop, 2, two_channels, overlap=overlap, mode="gaussian")[0]
    assert result.shape == expected.shape
    assert (result - expected).abs().max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(sizes, crops)
def test_a_translation_equivariant_network_is_reproduced(size, crop):
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(infer(x, double, crop), 2 * x, atol=1e-6)


def test_input_is_not_overwritten():
    x = torch.randn(1, 9, 9, 9)
    array = x.numpy().copy()
    original = x.clone()
    infer(x, lambda w: w.mul_(0).add_(3), (4, 4, 4), batch_size=1)
    sliding_window_inference(array, TorchNetwork(lambda w: w.mul_(0).add_(3)), (16, 16, 16), batch_size=1)
    assert torch.equal(x, original)
    assert np.array_equal(array, original.numpy())


def test_read_only_and_flipped_arrays_are_read():
    x = np.random.default_rng(0).random((1, 6, 7, 8), np.float32)[:, ::-1]
    x.flags.writeable = False
    assert np.allclose(sliding_window_inference(x, TorchNetwork(double), (4, 4, 4)), 2 * x)


def test_half_precision_outputs_are_summed_in_full_precision():
    x = torch.rand(1, 12, 12, 12)
    result = infer(x.half(), lambda w: w.half(), (5, 5, 5), 0.6)
    assert result.dtype == torch.float32
    assert torch.allclose(result, x.half().float(), atol=1e-6)


def test_slabs_stream_with_a_buffer_of_one_crop_along_i():
    heights = [
        slab.shape[1] for slab in stream_slabs(np.ones((1, 40, 6, 6), np.float32), TorchNetwork(double), (8, 4, 4))
    ]
    assert sum(heights) == 40
    assert max(heights) <= 8


def test_a_slab_comes_before_later_windows_are_run():
    batches = []
    network = TorchNetwork(lambda w: batches.append(len(w)) or w)
    stream = stream_slabs(np.ones((1, 40, 4, 4), np.float32), network, (8, 4, 4))
    next(stream)
    assert len(batches) == 1


@pytest.mark.parametrize("fault", [lambda w: w.clip(1), np.ones_like])
def test_wrong_weights_are_detected(fault, monkeypatch):
    from medssl.inference import sliding_window as module

    gaussian = module._gaussian_weights
    x = torch.randn(1, 9, 9, 9)
    expected = infer(x, two_channels, (4, 4, 4))
    monkeypatch.setattr(module, "_gaussian_weights", lambda crop: fault(gaussian(crop)))
    assert not torch.allclose(infer(x, two_channels, (4, 4, 4)), expected, atol=1e-5)


def test_no_window_runs_alone():
    batches = []

    def network(x):
        batches.append(len(x))
        return two_channels(x)

    for size in ((5, 4, 4), (5, 4, 20), (9, 9, 9)):
        x = torch.randn(2, *size, generator=torch.Generator().manual_seed(3))
        result = infer(x, network, (4, 4, 4), batch_size=2)
        assert torch.allclose(
            result, monai_inference(x[None], (4, 4, 4), 2, two_channels, 0.5, "gaussian")[0], atol=1e-5
        )
    assert min(batches) >= 2


def exhaust_gpu():
    raise torch.OutOfMemoryError


def exhaust_memory():
    torch.empty(1 << 50)


@pytest.mark.parametrize("exhaust", [exhaust_gpu, exhaust_memory])
def test_a_batch_that_exceeds_the_memory_is_halved(exhaust):
    def network(x):
        if len(x) > 2:
            exhaust()
        return two_channels(x)

    x = torch.randn(2, 9, 9, 9, generator=torch.Generator().manual_seed(3))
    with pytest.warns(InputWarning, match="the batch is halved"):
        result = infer(x, network, (4, 4, 4), batch_size=8)
    assert torch.equal(result, infer(x, two_channels, (4, 4, 4), batch_size=8))


@pytest.mark.parametrize("exhaust", [exhaust_gpu, exhaust_memory])
def test_a_window_that_exceeds_the_memory_is_one_clear_line(exhaust):
    with pytest.warns(InputWarning), pytest.raises(BadInput, match="too small for one window of 4x4x4 voxels"):
        infer(torch.zeros(1, 9, 9, 9), lambda x: exhaust(), (4, 4, 4))


def test_another_error_of_a_network_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        infer(torch.zeros(1, 9, 9, 9), lambda x: x @ torch.zeros(7, 7), (4, 4, 4))
