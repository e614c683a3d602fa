"""A prediction of the body alone equals the whole one wherever the body or its margin is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medssl.data.normalization import IntensityNormalization
from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.body_windows import BodyWindows
from medssl.inference.test_time_augmentation import MirrorView
from medssl.volume import Volume

CODES = ("RAS", "LPS", "SRP", "AIL")
grids = st.tuples(
    st.sampled_from([(1.0, 1.0, 1.0), (0.9, 1.1, 5.0), (2.0, 0.7, 1.3)]),
    st.sampled_from(CODES),
    st.sampled_from([(0, 0, 0), (0, 0, 25), (13, -8, 31)]),
)


class CountingNetwork:
    """Convolutions with large values everywhere, air too, that count their windows."""

    def __init__(self):
        self.num_windows = 0
        self.weight = torch.randn(3, 1, 3, 3, 3, generator=torch.Generator().manual_seed(1))

    def __call__(self, x):
        self.num_windows += len(x)
        return (torch.nn.functional.conv3d(x, self.weight, padding=1) * 4).softmax(1)


def make_scan(shape, grid=((1.0, 1.0, 1.0), "RAS", (0, 0, 0)), centres=(0.3,), radius_mm=9.0, unit="HU"):
    """Returns noisy air with balls of tissue, and the distance of each voxel from these in mm."""
    spacing, codes, degrees = grid
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(spacing)
    points = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    middles = [np.array(shape) * spacing * (centre, 0.5, 0.5) for centre in centres]
    distance = np.min([np.linalg.norm(points - middle, axis=-1) for middle in middles], axis=0) - radius_mm
    air, tissue = (-1000, 40) if unit == "HU" else (10, 500)
    noise = np.random.default_rng(0).normal(0, 8, shape)
    voxels = (np.where(distance <= 0, tissue, air) + noise).astype(np.int16)
    scan = Volume(voxels, affine, unit).reorient(codes)
    return scan, Volume(distance.astype(np.float32), affine, "a.u.").reorient(codes).voxels


def predict(scan, margin_mm, spacing_mm=(1.5, 1.5, 1.5), views=None):
    network = CountingNetwork()
    predictor = Predictor(
        TorchNetwork(network),
        lambda v: IntensityNormalization().prepare_input(v, spacing_mm),
        (8, 8, 8),
        {1: "a", 2: "b"},
        crop_body_mm=margin_mm,
    )
    model = Ensemble((predictor,), views) if views else predictor
    return model(scan, "a"), network.num_windows


@settings(max_examples=12, deadline=None)
@given(grids, st.sampled_from([0.0, 3.0, 8.0]), st.sampled_from(["HU", "a.u."]))
def test_labels_are_equal_in_the_body_and_its_margin(grid, margin_mm, unit):
    scan, distance = make_scan((56, 30, 24), grid, unit=unit)
    whole, num_all = predict(scan, None)
    part, num_computed = predict(scan, margin_mm)
    is_near = distance <= margin_mm
    assert np.array_equal(part.labels.voxels[is_near], whole.labels.voxels[is_near])
    assert np.abs(part.probability.voxels - whole.probability.voxels)[is_near].max() < 1e-5
    assert num_computed <= num_all


def test_far_from_the_body_all_is_background():
    scan, distance = make_scan((90, 30, 24))
    whole, _ = predict(scan, None)
    part, _ = predict(scan, 5.0)
    is_far = distance > 5 + 8 * 1.5 * np.sqrt(3) + 6
    assert is_far.any() and whole.labels.voxels[is_far].any()
    assert not part.labels.voxels[is_far].any()
    assert part.probability.voxels[is_far].max() < 1e-6


@pytest.mark.parametrize("codes", CODES)
def test_a_volume_that_is_all_body_gives_equal_labels(codes):
    scan, _ = make_scan((30, 24, 20), ((1.0, 1.0, 3.0), codes, (0, 0, 10)), radius_mm=1000)
    whole, num_all = predict(scan, None)
    part, num_computed = predict(scan, 0.0)
    assert np.array_equal(part.labels.voxels, whole.labels.voxels)
    assert np.array_equal(part.probability.voxels, whole.probability.voxels)
    assert num_computed == num_all


@pytest.mark.parametrize("views", [None, (MirrorView(), MirrorView((0, 2)))])
def test_a_volume_without_a_body_is_background(views):
    scan, _ = make_scan((30, 24, 20), radius_mm=-1000)
    whole, num_all = predict(scan, None, views=views)
    part, num_computed = predict(scan, 10.0, views=views)
    assert whole.labels.voxels.any()
    assert not part.labels.voxels.any() and part.findings == ()
    assert num_computed < num_all / 10


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirrored_views_leave_out_the_same_places(axes):
    scan, distance = make_scan((57, 31, 25))
    views = (MirrorView(), MirrorView(axes))
    whole, num_all = predict(scan, None, views=views)
    part, num_computed = predict(scan, 6.0, views=views)
    is_near = distance <= 3
    assert np.array_equal(part.labels.voxels[is_near], whole.labels.voxels[is_near])
    assert num_computed < num_all


@pytest.mark.parametrize(("unit", "air"), [("HU", -1000), ("a.u.", 10)])
def test_a_smaller_leg_and_holes_belong_to_the_body_but_noise_does_not(unit, air):
    scan, distance = make_scan((120, 30, 24), centres=(0.2, 0.8), unit=unit)
    voxels = scan.voxels.copy()
    voxels[distance <= -2] = air
    voxels[93:] = air  # only a part of the second ball is left
    distance[93:] = np.inf
    voxels[60, 3, 3] = 300  # a single bright voxel in the air
    windows = BodyWindows.find(replace(scan, voxels=voxels), scan, 0.0)
    inside = np.argwhere(distance <= 0)
    assert all(windows.contains(tuple(map(int, voxel)), (1, 1, 1)) for voxel in inside[::50])
    assert not windows.contains((58, 1, 1), (4, 4, 4))


def test_a_large_scan_is_searched_on_a_coarse_grid_and_no_near_voxel_is_lost():
    scan, distance = make_scan((200, 110, 40), ((0.8, 0.8, 4.0), "RAS", (0, 0, 0)), radius_mm=20)
    windows = BodyWindows.find(scan, scan, 7.0)
    assert max(windows.mask.shape) <= 96
    random = np.random.default_rng(0)
    near = np.argwhere(ndimage.binary_erosion(distance <= 7))
    for voxel in random.choice(near, 200):
        assert windows.contains(tuple(map(int, voxel)), (1, 1, 1))
    assert windows.mask.mean() < 0.5
