"""Intensity normalization, from scanner values to network input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from medssl.data.normalization import IntensityNormalization, body_mask
from medssl.errors import BadInput
from medssl.volume import Volume


def make_head(factor=1.0, shift=0.0, seed=0):
    """A bright ball in air."""
    offset = np.indices((24, 20, 16)).transpose(1, 2, 3, 0) - (12, 10, 8)
    rng = np.random.default_rng(seed)
    ball = np.linalg.norm(offset, axis=-1) < 7
    voxels = np.where(ball, rng.normal(600, 90, ball.shape), rng.uniform(0, 20, ball.shape))
    return Volume((voxels * factor + shift).astype(np.float32), np.eye(4), "a.u.")


@settings(max_examples=25, deadline=None)
@given(st.floats(1e-3, 1e4), st.floats(-1e3, 1e3))
def test_the_scale_and_offset_of_an_mr_do_not_matter(factor, offset):
    original, scaled = (
        IntensityNormalization().prepare(v, None).voxels for v in (make_head(), make_head(factor, offset * factor))
    )
    assert np.abs(original.astype(float) - scaled).max() < 0.02


def test_the_percentiles_of_the_body_become_0_and_1():
    prepared = IntensityNormalization().prepare(make_head(), None)
    inside = prepared.voxels[body_mask(make_head().voxels, "a.u.")].astype(float)
    assert np.percentile(inside, (0.5, 99.5)) == pytest.approx((0, 1), abs=0.01)
    assert prepared.voxels.dtype == np.float16


def test_hounsfield_units_are_kept_whole_and_windowed_when_read():
    hu = np.linspace(-1100, 1500, 4 * 5 * 6).reshape(4, 5, 6).round().astype(np.int16)
    stored = IntensityNormalization().prepare(Volume(hu, np.eye(4), "HU"), None)
    assert stored.voxels.dtype == np.int16 and np.array_equal(stored.voxels, hu)
    x = IntensityNormalization(window_hu=(-100, 300)).apply(stored.voxels, "HU")
    assert x == pytest.approx(np.clip((hu + 100) / 400, 0, 1), abs=1e-6)


def test_ct_among_mixed_channels_is_windowed_and_mr_is_not():
    ct = np.full((24, 20, 16), -1000, np.float32)
    ct[5:15, 5:15, 5:10] = 0
    both = Volume(np.stack([ct, make_head().voxels]), np.eye(4), "a.u.")
    stored = IntensityNormalization(hu_channels=(0,)).prepare(both, None).voxels
    assert np.unique(stored[0]).tolist() == [0, 0.5]
    assert np.array_equal(stored[1], IntensityNormalization().prepare(make_head(), None).voxels)


def test_lungs_belong_to_the_body_and_the_air_around_it_does_not():
    chest = np.full((40, 40, 6), -1000, np.int16)
    chest[5:35, 5:35] = 40
    chest[10:18, 10:30] = -850
    mask = body_mask(chest, "HU")
    assert mask[5:35, 5:35].all() and not mask[:5].any()


@pytest.mark.parametrize("unit", ["HU", "a.u."])
def test_a_constant_image_gives_finite_input(unit):
    normalization = IntensityNormalization()
    stored = normalization.prepare(Volume(np.full((4, 4, 4), 7.0), np.eye(4), unit), None)
    assert np.isfinite(normalization.apply(stored.voxels, unit)).all()


def test_a_prepared_volume_is_in_ras_at_the_target_spacing():
    volume = Volume(make_head().voxels, np.diag([-1.0, 1, 2, 1]), "a.u.")
    prepared = IntensityNormalization().prepare(volume, (2.0, 2.0, 2.0))
    assert prepared.orientation() == "RAS" and prepared.spacing_mm() == (2, 2, 2) and prepared.shape == (12, 10, 16)


def test_two_normalizations_do_not_mix():
    IntensityNormalization().require_same(IntensityNormalization())
    with pytest.raises(BadInput, match=r"-160.*-1000"):
        IntensityNormalization(window_hu=(-160, 240)).require_same(IntensityNormalization())


@pytest.mark.parametrize("values", [{"window_hu": (10, -10)}, {"percentiles": (50, 101)}, {"percentiles": (9, 9)}])
def test_ranges_must_increase(values):
    with pytest.raises(ValidationError):
        IntensityNormalization(**values)
