"""Tests what masked objectives hide and reconstruct, and that a step never waits for a device."""

from dataclasses import replace

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.executor import upsample_mask
from medssl.nn.patches import average_patches, compare_spectra
from medssl.objectives import sum as objective_sum
from medssl.objectives.reconstruction import mae, spark
from medssl.training.config import TrainConfig
from medssl.training.trainer import train
from tests.helpers.toy_training import make_loaders, make_spark, open_run

KINDS = {"spark": (spark.Config, spark.Spark), "mae": (mae.Config, mae.Mae)}


def make_objective(kind="spark", **settings):
    torch.manual_seed(0)
    settings_class, objective = KINDS[kind]
    return objective(settings_class(**settings), ResEncoder((6, 8, 12), (1, 2, 2)))


def make_crops(b=2, side=16):
    x = torch.rand(b, 1, 1, side, side, side, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    corner, affine = torch.zeros(b, 1, 3, dtype=torch.long), torch.eye(4).expand(b, 1, 4, 4)
    return Crops(x, corner, torch.full((b, 3), side), affine, torch.arange(b))


@pytest.mark.parametrize(
    "settings", [{}, {"densify": "token"}, {"target_range": (0.0, 1.0)}, {"spectral_weight": 1.0}], ids=str
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_nothing_from_a_device(kind, settings, monkeypatch):
    """Tensors of the device `meta` have no values, so that every read of one on the host raises."""
    if kind == "mae":
        settings = {key: value for key, value in settings.items() if key != "densify"}
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # does not know the device
    model = make_objective(kind, mask_ratio=(0.6, 0.9), **settings)
    crops = model.prepare(make_crops())
    moved = crops.to("meta")
    assert moved.mask.num_visible == int(crops.mask.visible.sum()) and moved.mask.visible.device.type == "meta"
    model.to("meta").step(moved).loss.backward()
    with pytest.raises((RuntimeError, NotImplementedError)):
        model.step(replace(moved, mask=None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_prepared_batch_gives_the_same_step(kind):
    first, second = make_objective(kind), make_objective(kind)
    crops = make_crops()
    assert torch.equal(first.step(first.prepare(crops)).loss, second.step(crops).loss)
    assert first.draws.made == second.draws.made == 1


def test_a_training_draws_the_masks_before_a_batch_moves(tmp_path, monkeypatch):
    model, masks = make_spark(), []
    step = model.step
    monkeypatch.setattr(model, "step", lambda crops: [masks.append(crops.mask), step(crops)][1])
    train(model, make_loaders(2), open_run(tmp_path / "run"), TrainConfig(epochs=1, steps_per_epoch=2))
    assert [mask.num_visible for mask in masks] == [int(mask.visible.sum()) for mask in masks] and len(masks) == 2


def test_a_sum_draws_the_mask_that_its_masked_objectives_share():
    other = {"mae": {"mask_ratio": 0.5}}
    cases = (("spark", "inpaint"), {}, True), (("spark", "mae"), {}, True), (("spark", "mae"), other, False)
    for names, terms, is_drawn in cases:
        torch.manual_seed(0)
        settings = objective_sum.Config(weights=dict.fromkeys(names, 1.0), terms=terms)
        model = objective_sum.Sum(settings, ResEncoder((6, 8, 12), (1, 2, 2)))
        crops = model.prepare(make_crops())
        assert (crops.mask is not None) == is_drawn
        model.step(crops).loss.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_can_be_several_strides_wide(kind):
    model = make_objective(kind, patch_strides=2)
    crops = make_crops(side=32)
    mask = model.prepare(crops).mask
    assert mask.visible.shape == (2, 1, 4, 4, 4)  # patches of 8 voxels, with a total stride of 4
    model.step(crops).loss.backward()
    with pytest.raises(BadInput, match=r"8 patches of \(8, 8, 8\) voxels, masking needs 16"):
        model.check_crop(make_crops(side=16).x[:, 0])
    with pytest.raises(BadInput, match="patch_strides and patch_mm both set the size"):
        config.check({"patch_strides": 2, "patch_mm": 8.0}, KINDS[kind][0], "run.yaml")


def set_reconstruction(model, reconstruction):
    """Lets a model predict the same volumes whatever it reads."""
    model.reconstruct, model.decode = (lambda x, *mask: reconstruction), (lambda dense: reconstruction)


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_target_is_the_intensity_itself(kind):
    model = make_objective(kind, target="raw")
    crops = make_crops()
    target = model.build_target(crops.x[:, 0], (4, 4, 4))
    assert torch.equal(target, crops.x[:, 0])
    set_reconstruction(model, crops.x[:, 0])
    assert model.step(crops).loss == 0
    assert torch.equal(model.to_intensities(target, crops.x[:, 0], (4, 4, 4)), crops.x[:, 0])
    normalized = make_objective(kind).build_target(crops.x[:, 0], (4, 4, 4))
    patch = normalized[0, 0, :4, :4, :4]
    assert abs(patch.mean()) < 1e-5 and abs(patch.var(correction=0) - 1) < 1e-3


@pytest.mark.parametrize("target", ["normalized", "raw"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_removed_faces_and_metal_are_never_a_target(kind, target):
    """Voxels at the ends of the intensities count nothing, neither in the loss nor in the statistics of a patch."""
    crops = make_crops()
    x = crops.x.clone()
    x[:, :, :, :2] = 0.0  # half of each patch of the first row
    x[:, :, :, 4:6, :8] = 1.0
    x[:, :, :, 8:12, 8:12, 8:12] = 1.0  # a whole patch
    crops = replace(crops, x=x)
    model = make_objective(kind, target=target, target_range=(0.0, 1.0))
    is_excluded = ((x == 0) | (x == 1))[:, 0]
    outcomes = {}
    for value in (0.0, 100.0):
        set_reconstruction(model, torch.where(is_excluded, value, 0.3))
        model.draws.made.zero_()
        outcomes[value] = model.step(crops)
    assert outcomes[0.0].loss == outcomes[100.0].loss > 0
    inside = make_objective(kind, target=target)
    set_reconstruction(inside, torch.where(is_excluded, 100.0, 0.3))
    assert inside.step(crops).loss > 2 * outcomes[0.0].loss
    if target == "normalized":
        values = model.build_target(x[:, 0], (4, 4, 4))[0, 0, 2:4, :4, :4]
        assert abs(values.mean()) < 1e-5 and abs(values.var(correction=0) - 1) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_of_targets_must_go_from_low_to_high(kind):
    with pytest.raises(BadInput, match=r"target_range \[1\.0, 0\.0\] must go from low to high"):
        config.check({"target_range": [1.0, 0.0]}, KINDS[kind][0], "run.yaml")


def test_amplitude_spectra_differ_by_no_more_than_voxels():
    """Parseval: equal phases give the squared error of the voxels, other phases less, and a shift gives none."""
    x, y = torch.randn(2, 3, 2, 8, 12, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(1))
    patch = (4, 4, 2)
    squared = average_patches((x - y).square(), patch)
    spectra = compare_spectra(x, y, patch)
    assert (spectra < squared).all() and (spectra > 0).all()
    assert torch.allclose(compare_spectra(x, 3 * x, patch), average_patches((2 * x).square(), patch), rtol=1e-4)
    shifted = x.clone()
    shifted[..., :4, :4, :2] = x[..., :4, :4, :2].roll((1, 2, 1), (-3, -2, -1))  # within the first patch
    assert compare_spectra(x, shifted, patch).max() < 1e-10
    assert torch.equal(compare_spectra(x, y, patch)[:, :, 1:], compare_spectra(x[:, :, 4:], y[:, :, 4:], patch))


@pytest.mark.parametrize("kind", KINDS)
def test_the_spectral_error_of_hidden_patches_is_added_with_its_weight(kind):
    """Visible patches and voxels that are no targets do not count."""
    crops = make_crops()
    x = crops.x.clone()
    x[:, :, :, :2] = 0.0
    crops = replace(crops, x=x)
    steps = {}
    for weight in (0.0, 1.0, 2.0):
        model = make_objective(kind, target_range=(0.0, 1.0), spectral_weight=weight)
        crops = model.prepare(replace(crops, mask=None))
        target, visible = model.build_target(x[:, 0], (4, 4, 4)), upsample_mask(crops.mask.visible, (16, 16, 16))
        wrong = torch.randn(x[:, 0].shape, generator=torch.Generator().manual_seed(2))
        set_reconstruction(model, torch.where(visible, 100.0, target + wrong * (x[:, 0] > 0)))
        steps[weight] = model.step(crops)
        set_reconstruction(model, torch.where(visible, 100.0, torch.where(x[:, 0] > 0, target, 100.0)))
        assert model.step(crops).loss < 1e-8
    assert "spectral" not in steps[0.0].logs
    error = steps[1.0].logs["spectral"]
    assert 0 < error < steps[0.0].logs["hidden"]
    for weight in (1.0, 2.0):
        assert torch.allclose(steps[weight].loss, steps[0.0].loss + weight * error)


def test_a_negative_weight_of_the_spectra_is_refused():
    with pytest.raises(BadInput, match=r"spectral_weight: must be greater than or equal to 0"):
        config.check({"spectral_weight": -1}, spark.Config, "run.yaml")
