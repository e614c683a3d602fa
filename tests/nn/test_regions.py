"""The same place in two crops, however the crops were cut."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.errors import BadInput
from medssl.nn.regions import common, crossing, moved, sample

SHAPE = (12, 16, 8)


def affines(seed, turned):
    g = torch.Generator().manual_seed(seed)
    out = torch.eye(4).repeat(3, 1, 1)
    if turned:
        out[:, :3, :3] = torch.linalg.qr(torch.randn(3, 3, 3, generator=g)).Q
    out[:, :3, :3] *= 0.5 + torch.rand(3, 1, 3, generator=g)
    out[:, :3, 3] = 500 * torch.randn(1, 3, generator=g) + 2 * torch.randn(3, 3, generator=g)
    return out


def shown(affine, shape=SHAPE):
    """A crop whose three channels are the mm of its voxels, so that a sampled feature says where it was taken."""
    index = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float) for n in shape])
    mm = index @ affine[:, :3, :3].mT + affine[:, None, :3, 3]
    return mm.mT.reshape(len(affine), 3, *shape)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_features_of_common_places_come_from_the_same_mm(seed, turned):
    a, b = affines(seed, turned), affines(seed + 1, turned)
    b[:, :3, 3] = a[:, :3, 3]
    here, there, enough = common(crossing(a, b), SHAPE, 3, 1.0, torch.Generator().manual_seed(seed))
    left, right = sample(shown(a), here, SHAPE), sample(shown(b), there, SHAPE)
    assert torch.allclose(left[enough], right[enough], atol=2e-3)
    assert torch.equal(torch.isfinite(here).all((1, 2)), torch.ones(3, dtype=torch.bool))


def test_bf16_moves_no_place():
    a, b = affines(4, True), affines(5, True)
    b[:, :3, 3] = a[:, :3, 3]
    points = 8 * torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(0))
    seen = shown(a)
    plain = sample(seen, points, SHAPE), moved(points, crossing(a, b))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sample(seen, points, SHAPE), plain[0])
        assert torch.equal(moved(points, crossing(a, b)), plain[1])


def test_regions_wider_than_the_crop_are_refused():
    with pytest.raises(BadInput, match="do not fit"):
        common(torch.eye(4)[None], SHAPE, 2, 4.0, torch.Generator())


def test_a_shift_by_a_voxel_would_be_noticed():
    a = affines(0, False)
    b = a.clone()
    b[:, :3, 3] += 1
    here, there, _ = common(crossing(a, b), SHAPE, 3, 1.0, torch.Generator())
    assert not torch.allclose(sample(shown(a), here, SHAPE), sample(shown(b), there + 1, SHAPE), atol=0.1)


def test_crops_far_apart_share_nothing():
    a = torch.eye(4).repeat(2, 1, 1)
    b = a.clone()
    b[1, 0, 3] = 100
    *_, enough = common(crossing(a, b), SHAPE, 4, 1.0, torch.Generator())
    assert enough.tolist() == [True, False]


@pytest.mark.parametrize("stride", [2, 4])
def test_coarse_maps_are_read_at_the_same_place(stride):
    a = torch.eye(4)[None]
    points = torch.tensor([[[5.5, 7.5, 3.5], [4.0, 9.0, 4.0]]])
    coarse = F.avg_pool3d(shown(a), stride)
    assert torch.allclose(sample(coarse, points, SHAPE), points, atol=1e-5)


def test_a_region_is_the_mean_over_its_width():
    x = torch.zeros(1, 1, 5, 5, 5)
    x[0, 0, 2, 2, 2] = 27
    assert sample(x, torch.tensor([[[2.0, 2, 2]]]), (5, 5, 5), width=3).item() == pytest.approx(1)
