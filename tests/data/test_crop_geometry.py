"""Positions and pairs of crops, on scans with a known answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medssl.data.crop_geometry import (
    NO_SCAN,
    CropPositions,
    crop_positions,
    extend_positives,
    number_looks,
    positive_and_ignored_pairs,
    scan_bounds_mm,
    voxel_to_scan_fraction,
)
from medssl.data.crops import Crops


def cut_crop(volume_affine, size, corner, crop, volume=0):
    """Cuts one crop of a scan, geometry only."""
    shift = torch.eye(4)
    shift[:3, 3] = torch.tensor(corner, dtype=torch.float)
    return Crops(
        x=torch.zeros(1, 1, 1, *crop), corner=torch.tensor([[corner]]), size=torch.tensor([size]),
        affine=(volume_affine @ shift)[None, None], volume=torch.tensor([volume]),
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 20)] * 3), st.booleans(), st.integers(0, 2))
def test_a_position_is_a_fraction_of_the_scan_however_the_scan_is_stored(corner, flipped, axis):
    affine = torch.diag(torch.tensor([-0.5 if flipped else 0.5, 2.0, 3.0, 1.0]))
    affine[:3, 3] = torch.tensor([40.0, -70.0, 1000.0])
    crops = cut_crop(affine, (40, 50, 60), corner, (8, 10, 12))
    fraction = (torch.tensor(corner) + torch.tensor((8, 10, 12)) / 2) / torch.tensor((40, 50, 60))
    expected = 1 - fraction[0] if flipped and axis == 0 else fraction[axis]
    assert crop_positions(crops, axis).along.item() == pytest.approx(float(expected), abs=1e-5)
    assert crop_positions(crops, axis).extent_mm[0].tolist() == pytest.approx([20, 100, 180], rel=1e-5)


def test_the_extent_of_a_rotated_scan_is_along_the_axes_of_the_patient():
    affine = torch.zeros(4, 4)
    affine[0, 2], affine[1, 0], affine[2, 1], affine[3, 3] = 1, 2, -3, 1
    low, high = scan_bounds_mm(cut_crop(affine, (10, 20, 30), (1, 2, 3), (4, 4, 4)))
    assert low[0].tolist() == pytest.approx([-0.5, -1, -58.5]) and high[0].tolist() == pytest.approx([29.5, 19, 1.5])


def test_corners_of_a_scan_are_at_fractions_zero_and_one():
    affine = torch.diag(torch.tensor([-0.5, 2.0, 3.0, 1.0]))
    to_fraction = voxel_to_scan_fraction(cut_crop(affine, (40, 50, 60), (8, 9, 10), (4, 4, 4)))[0]
    first, last = torch.tensor([-8.5, -9.5, -10.5, 1]), torch.tensor([31.5, 40.5, 49.5, 1])
    assert torch.allclose(to_fraction @ first, torch.tensor([1.0, 0, 0, 1]), atol=1e-5)
    assert torch.allclose(to_fraction @ last, torch.tensor([0.0, 1, 1, 1]), atol=1e-5)


def make_positions(volume, along, extent=100.0):
    n = len(volume)
    return CropPositions(torch.tensor(volume), torch.tensor(along), torch.full((n, 3), extent))


def classify_pairs(a, b, pairs, partitions, soft):
    rows = []
    for v, z, e in zip(a.volume.tolist(), a.along.tolist(), a.extent_mm[:, 0].tolist(), strict=True):
        for w, y, f in zip(b.volume.tolist(), b.along.tolist(), b.extent_mm[:, 0].tolist(), strict=True):
            comparable = max(e / f, f / e) <= 1.1
            same_slab = min(int(z * partitions), partitions - 1) == min(int(y * partitions), partitions - 1)
            if v == w or NO_SCAN in (v, w):
                rows.append("left out")
            elif pairs == "GR":
                rows.append("negative")
            elif comparable and same_slab:
                rows.append("positive" if pairs == "GD" else "left out")
            else:
                rows.append("left out" if not comparable and abs(z - y) < soft else "negative")
    return rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["GR", "GD-", "GD"]), st.integers(1, 6))
def test_pairs_follow_the_definition_one_by_one(seed, pairs, partitions):
    g = torch.Generator().manual_seed(seed)

    def draw_positions(n):
        extent = torch.where(torch.rand(n, generator=g) < 0.5, 100.0, 150.0)[:, None].expand(n, 3)
        return CropPositions(torch.randint(-1, 4, (n,), generator=g), torch.rand(n, generator=g), extent)

    a, b = draw_positions(5), draw_positions(7)
    positive, ignore = positive_and_ignored_pairs(a, b, pairs, partitions, 0.1, 0.15)
    assert not (positive & ignore).any()
    pairs_of_masks = zip(positive.flatten(), ignore.flatten(), strict=True)
    assert ["positive" if p else "left out" if i else "negative" for p, i in pairs_of_masks] == classify_pairs(
        a, b, pairs, partitions, 0.15
    )


def test_scans_with_different_fields_of_view_have_no_positives():
    a, b = make_positions([0], [0.5]), make_positions([1, 2], [0.5, 0.9], extent=300.0)
    positive, ignore = positive_and_ignored_pairs(a, b, "GD", 4, 0.2, 0.1)
    assert positive.tolist() == [[False, False]] and ignore.tolist() == [[True, False]]


def test_columns_stay_together():
    a, b = make_positions([0, 1], [0.1, 0.2]), make_positions([2], [0.3])
    both = a.concatenate(b).map_columns(lambda column: column[[2, 0]])
    assert both.volume.tolist() == [2, 0] and both.along.tolist() == pytest.approx([0.3, 0.1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 9))
def test_positives_spread_over_looks_by_one_hop_and_no_further(seed, n, m):
    g = torch.Generator().manual_seed(seed)
    positive, a, b = torch.rand(n, m, generator=g) < 0.2, *(torch.randint(4, (size,), generator=g) for size in (n, m))
    extended = extend_positives(positive, a, b)
    expected = [
        [any(positive[p, q] and a[p] == a[i] and b[q] == b[j] for p in range(n) for q in range(m)) for j in range(m)]
        for i in range(n)
    ]
    assert extended.tolist() == expected
    assert torch.equal(extend_positives(extended, a, b), extended), "closed under further hops"


def test_views_that_share_half_of_their_voxels_are_one_look_in_any_orientation():
    affine = torch.tensor([[0.0, 0, -2, 5], [1, 0, 0, 7], [0, 3, 0, 9], [0, 0, 0, 1]]).repeat(4, 2, 1, 1)
    shift = torch.eye(4).repeat(4, 1, 1)
    shift[:, :3, 3] = torch.tensor([[0.0, 0, 0], [3, 0, 0], [3, 5, 0], [0, 0, 13]])
    affine[:, 1] = affine[:, 1] @ shift
    x = torch.zeros(4, 2, 1, 8, 10, 12)
    crops = Crops(x, torch.zeros(4, 2, 3, dtype=torch.long), torch.full((4, 3), 40), affine, torch.arange(4))
    assert number_looks(crops).tolist() == [0, 0, 2, 2, 4, 5, 6, 7]
