"""SparK on every encoder: nothing leaks, visible cells suffice, and what is learnt loads into the plain network."""

import pytest
import torch

from medssl.data.crops import Crops
from medssl.nn.encoders import base, convnext, dynunet, residual, segresnet, swinunetr
from medssl.nn.executor import Layout, enlarge
from medssl.nn.sparse import Blocks
from medssl.objectives.spark import Config, Spark

SHAPE = {"channels": (8, 12, 16), "strides": (1, 2, 2)}
FLAT = SHAPE | {"strides": ((1, 2, 2), (1, 2, 2), (2, 2, 1))}
ENCODERS = {
    "residual": residual.Config(**SHAPE, bias=True),
    "residual-flat": residual.Config(**FLAT, norm="batch"),
    "convnext": convnext.Config(**SHAPE, blocks=1),
    "convnext-flat": convnext.Config(**FLAT, blocks=1, norm="group"),
    "segresnet": segresnet.Config(init_filters=8, blocks_down=(1, 1, 1)),
    "dynunet": dynunet.Config(**SHAPE),
    "dynunet-flat": dynunet.Config(**FLAT, norm="batch", residual=False),
}
SWIN = swinunetr.Config(feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=2)


def learner(choice):
    torch.manual_seed(0)
    return Spark(Config(ratio=0.6, decoder="light"), choice.build(1))


def volumes(choice, batch=2):
    size = (64, 64, 128) if choice is SWIN else (16, 16, 16)
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(0))


def crops(choice):
    x = volumes(choice)
    b, _, *size = x.shape
    affine = torch.eye(4).expand(b, 1, 4, 4)
    return Crops(x[:, None], torch.zeros(b, 1, 3).long(), torch.tensor([size] * b), affine, torch.arange(b))


def nothing_leaks(choice, batch=2):
    spark, x = learner(choice), volumes(choice, batch)
    keep, _ = spark.mask(x)
    other = torch.where(enlarge(keep, tuple(x.shape[2:])), x, torch.rand_like(x))
    with torch.no_grad():
        spark.eval()
        assert (spark.rebuild(x, keep) - spark.rebuild(other, keep)).abs().max() == 0


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_voxels_do_not_reach_what_is_rebuilt(name):
    nothing_leaks(ENCODERS[name])


@pytest.mark.slow
def test_hidden_voxels_do_not_reach_what_is_rebuilt_where_the_mask_is_not_followed_within(caplog):
    nothing_leaks(SWIN, batch=1)
    assert "take hidden cells for zeros" in caplog.text


class SeesEverything(Blocks):
    """Halos from hidden neighbours as well: the layers of an encoder without a mask."""

    def conv(self, conv, x):
        whole = Layout().conv(conv, self.everything) if x is self.entered else conv(self.leave(x))
        return self.enter(whole)

    def enter(self, x):
        self.everything, self.entered = x, super().enter(x)
        return self.entered


@pytest.mark.parametrize("name", [n for n in ENCODERS if "convnext" not in n])  # whose stem never leaves its cell
def test_an_encoder_that_looks_at_hidden_cells_is_caught(name, monkeypatch):
    monkeypatch.setattr(base, "Blocks", SeesEverything)
    with pytest.raises(AssertionError):
        nothing_leaks(ENCODERS[name])


@pytest.mark.parametrize("name", ENCODERS)
def test_visible_cells_alone_give_the_loss_and_the_gradients_of_the_masked_network(name):
    steps = []
    for dense in (True, False):
        spark = learner(ENCODERS[name]).double()
        spark.encoder.dense = dense
        x = volumes(ENCODERS[name]).double()
        keep, body = spark.mask(x)
        loss = spark.score(spark.rebuild(x, keep).double(), x, keep, body).loss
        loss.backward()
        steps.append([loss.detach(), *(p.grad for p in spark.encoder.parameters())])
    for ours, theirs in zip(*steps, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_learnt_loads_strictly_into_the_plain_network(name):
    choice = ENCODERS[name]
    spark = learner(choice)
    spark.step(crops(choice)).loss.backward()
    assert all(p.grad.isfinite().all() for p in spark.encoder.parameters())
    taught, plain = spark.transferable()["encoder"].eval(), choice.build(1).eval()
    plain.load_state_dict(taught.state_dict(), strict=True)
    x = volumes(choice)
    assert all(torch.equal(a, b) for a, b in zip(taught(x), plain(x), strict=True))
