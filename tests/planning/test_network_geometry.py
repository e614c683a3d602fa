"""Crops, strides and kernels follow spacing and scan size."""

import numpy as np
import pytest

from medssl.nn.encoder import EncoderConfig
from medssl.planning.network_cost import estimate_cost
from medssl.planning.network_geometry import choose_geometry, choose_spacing, choose_strides, padding_fraction

# What nnU-Net's planner publishes for Decathlon's hippocampus: 1 mm, 36 x 50 x 35 voxels.
PUBLISHED_HIPPOCAMPUS = (40, 56, 40)


def test_cubes_of_isotropic_voxels_are_halved_alike():
    geometry = choose_strides((1, 1, 1), (36, 50, 35))
    assert geometry.patch_size == PUBLISHED_HIPPOCAMPUS
    assert geometry.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert all(kernel == (3, 3, 3) for kernel in geometry.kernels)


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_kernels_and_strides_spare_the_thick_axis_in_the_order_of_the_store(thick: int):
    spacing, size = [1.4, 1.4, 1.4], [128, 128, 128]
    spacing[thick], size[thick] = 10.0, 10
    geometry = choose_strides(tuple(spacing), tuple(size))
    others = [axis for axis in range(3) if axis != thick]
    assert geometry.kernels[0][thick] == 1 and all(geometry.kernels[0][axis] == 3 for axis in others)
    assert geometry.strides[1][thick] == 1 and all(geometry.strides[1][axis] == 2 for axis in others)
    assert geometry.kernels[-1] == (3, 3, 3)


def test_the_total_stride_divides_the_crop_and_an_encoder_accepts_it():
    for spacing, shape in (
        ((1.37, 1.37, 10), (250, 216, 9)),
        ((0.8, 0.8, 2.5), (512, 512, 120)),
        ((3, 3, 3), (33, 90, 61)),
    ):
        geometry = choose_geometry(spacing, shape, 96**3, lambda _: True)
        assert not any(n % step for n, step in zip(geometry.patch_size, geometry.total_stride, strict=True))
        encoder = EncoderConfig(channels=geometry.channels(8), strides=geometry.strides, kernels=geometry.kernels)
        assert estimate_cost(encoder, 1, geometry.patch_size).parameters > 0


def test_crops_shrink_until_they_fit_and_none_fits_no_budget():
    shape = (120.0, 120.0, 40.0)
    small = choose_geometry((1, 1, 2), shape, 256**3, lambda g: np.prod(g.patch_size) <= 40_000)
    large = choose_geometry((1, 1, 2), shape, 256**3, lambda g: np.prod(g.patch_size) <= 400_000)
    assert np.prod(small.patch_size) <= 40_000 < np.prod(large.patch_size) <= 400_000
    assert choose_geometry((1, 1, 2), shape, 256**3, lambda _: False) is None


def test_the_spacing_of_thick_slices_is_that_of_the_fine_scans():
    fine, coarse = (0.8, 0.8, 3.0), (0.8, 0.8, 6.0)
    spacings, shapes = [fine, *[coarse] * 8], [(400, 400, 40)] * 9
    assert choose_spacing(spacings, shapes)[2] == pytest.approx(np.percentile([3.0, *[6.0] * 8], 10))
    assert choose_spacing([(1.0, 1.0, 2.0)] * 3, shapes) == (1.0, 1.0, 2.0)


def test_padding_is_the_part_of_a_crop_outside_the_scan():
    assert padding_fraction((64, 64, 64), np.array([[64, 64, 9]])) == pytest.approx(1 - 9 / 64)
    assert padding_fraction((32, 32, 8), np.array([[64, 64, 9]])) == 0


def test_the_estimate_grows_with_the_voxels_and_the_width():
    narrow = estimate_cost(EncoderConfig(channels=(4, 8), strides=(1, 2)), 1, (16, 16, 16))
    wide = estimate_cost(EncoderConfig(channels=(8, 16), strides=(1, 2)), 1, (16, 16, 16))
    large = estimate_cost(EncoderConfig(channels=(4, 8), strides=(1, 2)), 1, (32, 16, 16))
    assert large.flops == pytest.approx(2 * narrow.flops) and large.parameters == narrow.parameters
    assert large.saved_bytes > 1.9 * narrow.saved_bytes
    assert wide.flops > 3 * narrow.flops and wide.parameters > 3 * narrow.parameters
