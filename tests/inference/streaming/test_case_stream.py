"""A prediction that is streamed equals the one that is computed on whole volumes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medssl.inference.connected_findings import extract_findings
from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.sliding_window import sliding_window_inference, stream_slabs
from medssl.inference.streaming.case_stream import Slab, _RowBuffer
from medssl.inference.streaming.grid_map import GridMap
from medssl.inference.test_time_augmentation import mirror_views
from medssl.volume import Volume

CODES = ("RAS", "LPS", "SRP", "AIL", "PIR", "LSA")


def make_network(num_classes, seed):
    """A network of smooth class maps that also depend on the position in the window, to reveal wrong windows."""
    generator = torch.Generator().manual_seed(seed)
    frequency, phase = (torch.rand(num_classes, generator=generator) * 3 for _ in range(2))

    def network(x):
        ramp = torch.linspace(0, 0.3, x.shape[-1]) + torch.linspace(0.2, 0, x.shape[-3])[:, None, None]
        logits = torch.sin(frequency[:, None, None, None] * (x[:, :1] + ramp) + phase[:, None, None, None]) * 8
        return logits.softmax(1)

    return TorchNetwork(network)


def make_scan(shape, spacing, codes, degrees, seed, slope=0.3):
    """A smooth image, whose grid has any orientation and may be oblique."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = (3.0, -11.0, 5.0)
    rng = np.random.default_rng(seed)
    waves = sum(
        np.sin(np.tensordot(rng.uniform(-slope, slope, 3), np.indices(shape), 1) + rng.uniform(0, 6)) for _ in range(4)
    )
    return Volume((waves / 3).astype(np.float32), affine, "a.u.").reorient(codes)


def predict_whole(predictor, scan):
    """Returns labels, foreground and confidence from all class probabilities on the whole grid of the scan."""
    prepared = predictor.prepare(scan)
    p = sliding_window_inference(prepared.voxels[None], predictor.network, predictor.crop, predictor.overlap)
    probability = replace(prepared, voxels=p, unit="probability").resample_to(scan, order=1, fill=None).voxels
    return probability.argmax(0), 1 - probability[0], probability


def compare(scan, predictor, tolerance=1e-5):
    streamed = predictor(scan, "a")
    labels, foreground, probability = predict_whole(predictor, scan)
    assert np.array_equal(streamed.labels.affine, scan.affine) and streamed.labels.shape == scan.shape
    assert np.abs(streamed.probability.voxels - foreground).max() < tolerance
    best, second = np.sort(probability, axis=0)[[-1, -2]] if len(probability) > 1 else (np.ones(1), np.zeros(1))
    is_clear = best - second > tolerance
    assert np.array_equal(streamed.labels.voxels[is_clear | (labels == streamed.labels.voxels)], labels[
        is_clear | (labels == streamed.labels.voxels)
    ])  # fmt: skip
    assert (streamed.labels.voxels != labels).mean() < 1e-3  # ties on the grids of these small volumes
    confidence = np.where(streamed.labels.voxels > 0, probability.max(0), 0).astype(np.float32)
    expected = extract_findings(streamed.labels, confidence, None, "a", predictor.names, image=scan)
    assert [replace(f, uncertainty=None, score=0) for f in streamed.findings] == [replace(f, score=0) for f in expected]
    assert np.allclose([f.score for f in streamed.findings], [f.score for f in expected], atol=tolerance)


@settings(max_examples=12)
@given(
    st.tuples(*[st.integers(1, 21)] * 3), st.sampled_from([(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (1.5, 0.9, 1.1)]),
    st.sampled_from([(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.6, 1.7, 1.2), (1.0, 1.0, 4.0)]), st.sampled_from(CODES),
    st.sampled_from([(0, 0, 0), (0, 0, 20), (15, -10, 25)]), st.sampled_from([2, 3, 7]),
    st.sampled_from([0.0, 0.25, 0.5, 0.7]), st.integers(0, 99),
)  # fmt: skip
def test_streaming_equals_the_whole_volume(shape, spacing, working_mm, codes, degrees, num_classes, overlap, seed):
    scan = make_scan(shape, spacing, codes, degrees, seed)
    predictor = Predictor(
        make_network(num_classes, seed), lambda v: v.reorient("RAS").resample(working_mm, order=1), (8, 6, 7),
        {n: f"class {n}" for n in range(1, num_classes)}, overlap,
    )  # fmt: skip
    compare(scan, predictor)


@pytest.mark.parametrize("num_classes", [2, 104])
def test_large_tiles_skip_classes_that_cannot_win(num_classes):
    scan = make_scan((70, 66, 40), (0.8, 0.8, 1.0), "LPS", (0, 0, 0), 5, slope=0.05)
    names = {n: f"class {n}" for n in range(1, num_classes)}
    prepare = lambda v: v.reorient("RAS").resample((2.0, 2.0, 2.0), order=1)  # noqa: E731
    compare(scan, Predictor(make_network(num_classes, 5), prepare, (16, 16, 16), names))


@settings(max_examples=8)
@given(st.tuples(*[st.integers(1, 13)] * 3), st.integers(0, 2), st.booleans(), st.sampled_from([0.25, 0.5, 0.7]))
def test_slabs_along_any_axis_hold_the_same_values(size, axis, is_reversed, overlap):
    x = np.random.default_rng(1).normal(size=(1, *size)).astype(np.float32)
    network, crop = make_network(3, 1), (4, 5, 6)
    expected = np.moveaxis(sliding_window_inference(x, network, crop, overlap), axis + 1, 1)
    slabs = stream_slabs(x, network, crop, overlap, axis=axis, is_reversed=is_reversed)
    result = np.concatenate(list(slabs), axis=1)
    assert np.allclose(result[:, ::-1] if is_reversed else result, expected, atol=1e-5)


@pytest.mark.parametrize("codes", ["SRP", "LSA"])
def test_an_ensemble_with_mirrors_does_not_depend_on_the_order_of_axes(codes):
    scan = make_scan((14, 12, 11), (1.0, 1.1, 1.3), "RAS", (0, 0, 0), 3, slope=0.1)
    names = {1: "left lung", 2: "right lung"}
    members = tuple(Predictor(make_network(3, seed), lambda v: v.reorient("RAS"), (8, 6, 7), names) for seed in (1, 2))
    ensemble = Ensemble(members, mirror_views((0, 1, 2), names), temperature=1.4)
    expected, turned = ensemble(scan, "a"), ensemble(scan.reorient(codes), "a")
    for name in ("labels", "probability", "uncertainty"):
        voxels = getattr(turned, name).reorient("RAS").voxels
        assert np.allclose(voxels, getattr(expected, name).voxels, atol=1e-5)


def test_memory_holds_few_rows():
    scan = make_scan((12, 12, 200), (1.0, 1.0, 1.0), "RAS", (0, 0, 0), 3)
    grid_map = GridMap.between(scan, scan)
    assert max(rows.stop - rows.start for _, rows in grid_map.iterate_blocks()) <= 18
    assert grid_map.order == (2, 1, 0) and not grid_map.is_reversed


def test_rows_that_no_later_block_needs_are_dropped():
    slabs = [Slab(np.full((2, 8, 3, 3), n, np.float32), np.full((8, 3, 3), n, np.float32)) for n in range(40)]
    buffer = _RowBuffer(iter(slabs))
    for start in range(0, 313, 4):
        taken = buffer.take(slice(start, start + 7))
        assert (taken.doubt[:, 0, 0] == np.arange(start, start + 7) // 8).all()
        assert (taken.probability[1, :, 2, 2] == np.arange(start, start + 7) // 8).all()
        assert sum(len(part.doubt) for part in buffer.parts) <= 16
