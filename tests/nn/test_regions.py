"""Tests that points and features of two crops are matched by position in mm."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.nn.regions import apply_affine, compute_voxel_transform, sample_features, sample_shared_points

SHAPE = (12, 16, 8)


def affines(seed, rotated):
    g = torch.Generator().manual_seed(seed)
    matrices = torch.eye(4).repeat(3, 1, 1)
    if rotated:
        matrices[:, :3, :3] = torch.linalg.qr(torch.randn(3, 3, 3, generator=g)).Q
    matrices[:, :3, :3] *= 0.5 + torch.rand(3, 1, 3, generator=g)
    matrices[:, :3, 3] = 500 * torch.randn(1, 3, generator=g) + 2 * torch.randn(3, 3, generator=g)
    return matrices


def make_coordinate_maps(affine, shape=SHAPE):
    """Returns crops whose three channels are the mm of each voxel, so that a sampled feature is its own position."""
    index = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float) for n in shape])
    mm = index @ affine[:, :3, :3].mT + affine[:, None, :3, 3]
    return mm.mT.reshape(len(affine), 3, *shape)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_features_of_common_places_come_from_the_same_mm(seed, rotated):
    a, b = affines(seed, rotated), affines(seed + 1, rotated)
    b[:, :3, 3] = a[:, :3, 3]
    points, other_points, enough = sample_shared_points(
        compute_voxel_transform(a, b), SHAPE, 3, 1.0, torch.Generator().manual_seed(seed)
    )
    features, other_features = (
        sample_features(make_coordinate_maps(a), points, SHAPE),
        sample_features(make_coordinate_maps(b), other_points, SHAPE),
    )
    assert torch.allclose(features[enough], other_features[enough], atol=2e-3)
    assert torch.equal(torch.isfinite(points).all((1, 2)), torch.ones(3, dtype=torch.bool))


def test_bf16_moves_no_place():
    a, b = affines(4, True), affines(5, True)
    b[:, :3, 3] = a[:, :3, 3]
    points = 8 * torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(0))
    maps = make_coordinate_maps(a)
    plain = sample_features(maps, points, SHAPE), apply_affine(points, compute_voxel_transform(a, b))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sample_features(maps, points, SHAPE), plain[0])
        assert torch.equal(apply_affine(points, compute_voxel_transform(a, b)), plain[1])


def test_regions_wider_than_the_crop_are_refused():
    with pytest.raises(BadInput, match="do not fit"):
        sample_shared_points(torch.eye(4)[None], SHAPE, 2, 4.0, torch.Generator())


def test_a_shift_by_a_voxel_would_be_noticed():
    a = affines(0, False)
    b = a.clone()
    b[:, :3, 3] += 1
    points, other_points, _ = sample_shared_points(compute_voxel_transform(a, b), SHAPE, 3, 1.0, torch.Generator())
    assert not torch.allclose(
        sample_features(make_coordinate_maps(a), points, SHAPE),
        sample_features(make_coordinate_maps(b), other_points + 1, SHAPE),
        atol=0.1,
    )


def test_crops_far_apart_share_nothing():
    a = torch.eye(4).repeat(2, 1, 1)
    b = a.clone()
    b[1, 0, 3] = 100
    *_, enough = sample_shared_points(compute_voxel_transform(a, b), SHAPE, 4, 1.0, torch.Generator())
    assert enough.tolist() == [True, False]


@pytest.mark.parametrize("stride", [2, 4])
def test_coarse_maps_are_read_at_the_same_place(stride):
    a = torch.eye(4)[None]
    points = torch.tensor([[[5.5, 7.5, 3.5], [4.0, 9.0, 4.0]]])
    coarse = F.avg_pool3d(make_coordinate_maps(a), stride)
    assert torch.allclose(sample_features(coarse, points, SHAPE), points, atol=1e-5)


def test_a_region_is_the_mean_over_its_width():
    x = torch.zeros(1, 1, 5, 5, 5)
    x[0, 0, 2, 2, 2] = 27
    assert sample_features(x, torch.tensor([[[2.0, 2, 2]]]), (5, 5, 5), width=3).item() == pytest.approx(1)
