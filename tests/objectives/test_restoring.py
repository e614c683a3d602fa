"""Tests inputs and losses of inpainting and masked reconstruction."""

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.executor import upsample_mask
from medssl.objectives.reconstruction import inpaint, mae

OFF = dict.fromkeys(inpaint.CorruptionProbabilities.model_fields, 0.0)


def encoder():
    torch.manual_seed(0)
    return ResEncoder((6, 8, 12), (1, 2, 2))


def crops(b=2, views=1):
    x = torch.rand(b, views, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    corner, affine = torch.zeros(b, views, 3, dtype=torch.long), torch.eye(4).expand(b, views, 4, 4)
    return Crops(x, corner, torch.full((b, 3), 16), affine, torch.arange(b))


def make_inpaint(**probabilities):
    return inpaint.Inpaint(
        inpaint.Config(probabilities=inpaint.CorruptionProbabilities(**OFF | probabilities)), encoder()
    )


@pytest.mark.parametrize("corruption", [name for name in OFF if name != "nonlinear"])
def test_each_corruption_can_be_used_alone(corruption):
    x = crops().x[:, 0]
    corrupted, touched = make_inpaint(**{corruption: 1.0}).corrupt(x)
    assert touched.any((1, 2, 3, 4)).all()
    assert torch.equal(torch.where(touched, 0, corrupted), torch.where(touched, 0, x))


def test_without_corruptions_the_input_is_the_target():
    x = crops().x[:, 0]
    corrupted, touched = make_inpaint().corrupt(x)
    assert torch.equal(corrupted, x) and not touched.any()


def test_a_nonlinear_change_touches_every_voxel_and_leaves_the_target_unchanged():
    model, batch = make_inpaint(nonlinear=1.0), crops()
    corrupted, touched = model.corrupt(batch.x[:, 0])
    assert touched.all() and not torch.allclose(corrupted, batch.x[:, 0], atol=0.01)
    inputs = []
    model.restore = lambda x: inputs.append(x) or batch.x[:, 0]
    assert model.step(batch).loss == 0 and not torch.equal(inputs[0], batch.x[:, 0])


def test_copying_has_a_high_loss():
    model = make_inpaint(cells=1.0)
    model.restore = lambda x: x
    step = model.step(crops())
    assert step.logs["intact"] == 0 and step.loss > 1


def test_intact_voxels_have_a_weight_of_at_most_a_tenth():
    model = make_inpaint(voxels=1.0)
    model.restore = torch.zeros_like
    step = model.step(crops())
    assert step.loss.item() == pytest.approx(float(step.logs["restored"] + 0.1 * step.logs["intact"]), rel=1e-5)
    with pytest.raises(BadInput, match="clean_fraction"):
        config.check({"clean_fraction": 0.5}, inpaint.Config, "run.yaml")


def test_predicting_the_mean_of_a_crop_has_a_loss_of_one():
    model, batch = make_inpaint(voxels=1.0), crops()
    model.restore = lambda x: batch.x[:, 0].mean((1, 2, 3, 4), keepdim=True).expand_as(x)
    assert float(model.step(batch).logs["restored"]) == pytest.approx(1, abs=0.1)


def make_mae(**settings):
    return mae.Mae(mae.Config(**settings), encoder())


def test_hidden_voxels_do_not_affect_the_reconstruction():
    model, x = make_mae(), crops().x[:, 0]
    patches, _ = model.sample_mask(x)
    visible = upsample_mask(patches, tuple(x.shape[2:]))
    other = torch.where(visible, x, torch.rand_like(x))
    assert torch.equal(model.reconstruct(x, visible), model.reconstruct(other, visible))


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_the_given_fraction_is_hidden_in_whole_patches(ratio):
    visible, body = make_mae(mask_ratio=ratio).sample_mask(crops().x[:, 0])
    assert visible.shape == (2, 1, 4, 4, 4)
    assert body.all() and (~visible).float().mean() == ratio


def test_predicting_patch_means_has_a_loss_of_one_and_visible_patches_do_not_count():
    model, batch = make_mae(), crops()
    model.reconstruct = lambda x, visible: torch.where(visible, 9.0, torch.zeros_like(x))
    step = model.step(batch)
    assert step.loss.item() == pytest.approx(1, abs=1e-3) and step.logs["visible"] > 9
