"""What inpainting and masked reconstruction see, score and leave alone."""

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives import hybrid, inpaint, mae

OFF = dict.fromkeys(inpaint.Chances.model_fields, 0.0)


def encoder():
    torch.manual_seed(0)
    return ResEncoder((6, 8, 12), (1, 2, 2))


def crops(b=2, views=1):
    x = torch.rand(b, views, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    corner, affine = torch.zeros(b, views, 3, dtype=torch.long), torch.eye(4).expand(b, views, 4, 4)
    return Crops(x, corner, torch.full((b, 3), 16), affine, torch.arange(b))


def restorer(**chances):
    return inpaint.Inpaint(inpaint.Config(chances=inpaint.Chances(**OFF | chances)), encoder())


@pytest.mark.parametrize("way", [w for w in OFF if w != "bend"])
def test_each_corruption_can_stand_alone(way):
    x = crops().x[:, 0]
    broken, touched = restorer(**{way: 1.0}).corrupt(x)
    assert touched.any((1, 2, 3, 4)).all()
    assert torch.equal(torch.where(touched, 0, broken), torch.where(touched, 0, x))


def test_without_corruptions_the_input_is_the_target():
    x = crops().x[:, 0]
    broken, touched = restorer().corrupt(x)
    assert torch.equal(broken, x) and not touched.any()


def test_bent_intensities_touch_no_voxel_and_leave_the_target_clean():
    learner, batch = restorer(bend=1.0), crops()
    broken, touched = learner.corrupt(batch.x[:, 0])
    assert not touched.any() and not torch.allclose(broken, batch.x[:, 0], atol=0.01)
    seen = []
    learner.restore = lambda x: seen.append(x) or batch.x[:, 0]
    assert learner.step(batch).loss == 0 and not torch.equal(seen[0], batch.x[:, 0])


def test_copying_is_no_way_to_a_low_loss():
    learner = restorer(cells=1.0)
    learner.restore = lambda x: x
    step = learner.step(crops())
    assert step.logs["intact"] == 0 and step.loss > 1


def test_intact_voxels_count_a_tenth_at_most():
    learner = restorer(voxels=1.0)
    learner.restore = torch.zeros_like
    step = learner.step(crops())
    assert step.loss.item() == pytest.approx(float(step.logs["restored"] + 0.1 * step.logs["intact"]), rel=1e-5)
    with pytest.raises(BadInput, match="intact"):
        config.check({"intact": 0.5}, inpaint.Config, "run.yaml")


def test_the_crops_mean_scores_one():
    learner, batch = restorer(voxels=1.0), crops()
    learner.restore = lambda x: batch.x[:, 0].mean((1, 2, 3, 4), keepdim=True).expand_as(x)
    assert float(learner.step(batch).logs["restored"]) == pytest.approx(1, abs=0.1)


def masker(**settings):
    return mae.Mae(mae.Config(**settings), encoder())


def test_hidden_voxels_do_not_reach_what_is_rebuilt():
    learner, x = masker(), crops().x[:, 0]
    visible, _ = learner.mask(x)
    other = torch.where(visible, x, torch.rand_like(x))
    assert torch.equal(learner.rebuild(x, visible), learner.rebuild(other, visible))


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_the_asked_share_is_hidden_in_whole_cells(ratio):
    visible, body = masker(ratio=ratio).mask(crops().x[:, 0])
    assert body.all() and (~visible).float().mean() == ratio
    assert torch.equal(
        visible, visible[..., ::4, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)
    )


def test_each_cells_mean_scores_one_and_visible_cells_do_not_count():
    learner, batch = masker(), crops()
    learner.rebuild = lambda x, visible: torch.where(visible, 9.0, torch.zeros_like(x))
    step = learner.step(batch)
    assert step.loss.item() == pytest.approx(1, abs=1e-3) and step.logs["visible"] > 9


def test_a_hybrid_is_the_weighted_sum_of_its_parts():
    chosen = hybrid.Config(reconstruction="mae", contrastive="vicreg", reconstruction_weight=2, contrastive_weight=0.5)
    learner, batch = hybrid.Hybrid(chosen, encoder()), crops()
    step = learner.step(batch)
    assert step.loss.item() == pytest.approx(
        float(2 * step.logs["reconstruction"] + 0.5 * step.logs["contrastive"]), rel=1e-5
    )
    assert learner.transferable()["decoder"] is learner.reconstruction.decoder


def test_a_hybrid_takes_as_many_views_as_either_part_and_nests_settings():
    values = {
        "contrastive": {"name": "global_local", "views": 2, "queue": 8},
        "reconstruction": {"name": "mae", "ratio": 0.5},
    }
    chosen = config.check(values, hybrid.Config, "run.yaml")
    learner = hybrid.Hybrid(chosen, encoder())
    assert learner.views == 2 and learner.step(crops(views=2)).loss.isfinite()
    with pytest.raises(BadInput, match=r"contrastive\.queue"):
        config.check({"contrastive": {"name": "global_local", "queue": -1}}, hybrid.Config, "run.yaml")


def test_a_hybrid_refuses_a_contrast_that_compares_nothing():
    with pytest.raises(BadInput, match="mae"):
        hybrid.Hybrid(hybrid.Config(contrastive="mae"), encoder())
