"""A sequence that is absent has no effect at all, and sequences that are present are fused by their gates."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from medssl.nn.encoders.fusion import Config, fuse
from medssl.nn.executor import upsample_mask
from medssl.nn.sparse import VisibleBlocks
from medssl.objectives.reconstruction import mae
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders
from medssl.training.trainer import train
from tests.helpers.toy_training import make_batch, open_run

SHAPE = {"channels": (5, 7, 9), "strides": (1, 2, 2)}
KEPT = (0, 1, 3)


def make_encoder(in_channels, seed=0, **settings):
    torch.manual_seed(seed)
    net = Config(**SHAPE, **settings).build(in_channels)
    for gate in net.gates:
        torch.nn.init.normal_(gate.weight)
    return net


def make_crops_and_masks(in_channels=4, absent=(2,)):
    """Returns two crops; the first one lacks some sequences, the second one has all of them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, in_channels, 12, 8, 8, generator=generator)
    x[0, list(absent)] = 0
    visible = torch.rand(2, 1, 3, 2, 2, generator=generator) < 0.6
    return x, (None, visible)


def select_sequences(net, kept, **settings):
    """Returns the network of some sequences, with the weights of a network of more."""
    part = make_encoder(len(kept), seed=1, **settings)
    for n, sequence in enumerate(kept):
        part.stems[n].load_state_dict(net.stems[sequence].state_dict())
        part.gates[n].load_state_dict(net.gates[sequence].state_dict())
    part.levels.load_state_dict(net.levels.state_dict())
    return part


def are_equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("settings", [{}, {"norm": "layer"}, {"input_mean_std": ((0.4, 0.2),)}], ids=str)
@pytest.mark.parametrize("is_dense", [False, True])
def test_without_an_absent_sequence_every_bit_stays(settings, is_dense):
    net = make_encoder(4, **settings)
    part = select_sequences(net, KEPT, **settings)
    net.dense = part.dense = is_dense
    x, masks = make_crops_and_masks()
    for mask in masks:
        whole, fewer = net(x, mask), part(x[:, list(KEPT)], mask)
        assert are_equal([level[0] for level in whole], [level[0] for level in fewer])
        assert not are_equal([level[1] for level in whole], [level[1] for level in fewer])


def test_weights_of_an_absent_sequence_do_not_matter_and_get_no_gradient():
    net = make_encoder(4)
    x, masks = make_crops_and_masks()
    for mask in masks:
        before = net(x, mask)
        sum(level[0].square().sum() for level in before).backward()
        own = [*net.stems[2].parameters(), *net.gates[2].parameters()]
        assert all(not p.grad.any() for p in own) and net.stems[1].conv.weight.grad.abs().sum() > 0
        with torch.no_grad():
            for p in own:
                p.normal_()
        after = net(x, mask)
        assert are_equal([level[0] for level in before], [level[0] for level in after])
        assert not are_equal([level[1] for level in before], [level[1] for level in after])


def test_hidden_voxels_do_not_decide_which_sequences_are_present():
    net = make_encoder(4)
    x, (_, visible) = make_crops_and_masks()
    hidden = ~upsample_mask(visible, tuple(x.shape[2:]))
    other = x.clone()
    other[:, 2:3] = torch.where(hidden, torch.rand_like(other[:, 2:3]) + 0.1, other[:, 2:3])
    assert (other[0, 2] != 0).any() and not (x[0, 2] != 0).any()
    assert isinstance(net.build_executor(x, visible), VisibleBlocks)
    for is_dense in (False, True):
        net.dense = is_dense
        assert are_equal(net(x, visible), net(other, visible))


def test_a_sequence_that_is_zero_in_some_patches_is_present_in_the_whole_crop():
    net = make_encoder(4).double()
    x, (_, visible) = make_crops_and_masks()
    x = x.double()
    x[:, 3, :4] = 0
    visible[:, :, :2, 0] = True
    sparse = net(x, visible)
    net.dense = True
    for actual, expected in zip(sparse, net(x, visible), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_crops_without_any_sequence_or_any_visible_patch_are_finite():
    net = make_encoder(3)
    x, masks = make_crops_and_masks(3, absent=(0, 1, 2))
    masks[1][1] = False
    for mask in masks:
        net.zero_grad()
        pyramid = net(x, mask)
        assert all(level.isfinite().all() for level in pyramid)
        sum(level.square().sum() for level in pyramid).backward()
        assert all(p.grad.isfinite().all() for p in net.parameters())


def test_equal_gates_average_the_sequences_present():
    features = torch.rand(3, 2, 4, 2, 2, 2)
    present = torch.tensor([[True, True, False], [False, True, False]])
    fused = fuse(features, torch.zeros_like(features), present)
    torch.testing.assert_close(fused[0], features[:2, 0].mean(0))
    assert torch.equal(fused[1], features[1, 1])


def test_a_large_gate_selects_its_sequence_for_each_channel_and_voxel():
    features = torch.rand(2, 1, 2, 1, 1, 2)
    chosen = torch.tensor([[[0, 1]], [[1, 0]]])[:, None, :, :].view(1, 1, 2, 1, 1, 2)
    logits = torch.cat([1 - chosen, chosen]) * 200.0
    assert torch.equal(fuse(features, logits, torch.ones(1, 2) > 0), features.gather(0, chosen)[0])


def test_a_training_with_blanked_channels_stays_finite_and_learns_every_stem(tmp_path):
    torch.manual_seed(0)
    learner = mae.Mae(mae.Config(), make_encoder(3))
    before = [stem.conv.weight.clone() for stem in learner.encoder.stems]
    x = 0.1 + 0.8 * torch.rand(2, 1, 3, 16, 16, 16)
    crops = replace(make_batch(0), x=x, size=torch.full((2, 3), 16))
    loaders = DataLoaders(DataLoader([crops] * 4, batch_size=None))
    train(learner, loaders, open_run(tmp_path / "run"), TrainConfig(epochs=1, steps_per_epoch=4, channel_dropout=0.5))
    assert all(p.isfinite().all() for p in learner.parameters())
    after = [stem.conv.weight for stem in learner.encoder.stems]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
