"""Tests SparK with every encoder: no leaks, sparse equals dense, and weights load into the plain network."""

import pytest
import torch

from medssl.data.crops import Crops
from medssl.nn.encoders import base, convnext, dynunet, fusion, primus, residual, segresnet, swinunetr, wavelet
from medssl.nn.executor import Executor, upsample_mask
from medssl.nn.sparse import VisibleBlocks
from medssl.objectives.reconstruction.spark import Config, Spark

SHAPE = {"channels": (8, 12, 16), "strides": (1, 2, 2)}
FLAT = SHAPE | {"strides": ((1, 2, 2), (1, 2, 2), (2, 2, 1))}
THICK = SHAPE | {"strides": (1, (2, 2, 1), 2), "kernels": ((3, 3, 1), (3, 3, 1), 3)}
STRIDED = SHAPE | {"strides": (1, 2, 2), "kernels": (3, (1, 3, 3), (3, 5, 1))}  # strides across kernels of one voxel
ENCODERS = {
    "residual": residual.Config(**SHAPE, bias=True),
    "residual-flat": residual.Config(**FLAT, norm="batch"),
    "residual-thick": residual.Config(**THICK),
    "residual-strided": residual.Config(**STRIDED),
    "dynunet-thick": dynunet.Config(**THICK),
    "convnext": convnext.Config(**SHAPE, blocks=1),
    "convnext-flat": convnext.Config(**FLAT, blocks=1, norm="group"),
    "segresnet": segresnet.Config(init_filters=8, blocks_down=(1, 1, 1)),
    "dynunet": dynunet.Config(**SHAPE),
    "primus": primus.Config(channels=(8, 12, 24), strides=(1, 2, 2), depth=2, num_heads=2),
    "primus-gate": primus.Config(channels=(8, 24), strides=(1, 4), depth=2, num_heads=2, gate="conv"),
    "primus-grid": primus.Config(
        channels=(8, 24), strides=((1, 2, 2), (4, 2, 2)), depth=1, num_heads=1, grid=(3, 3, 2)
    ),
    "dynunet-flat": dynunet.Config(**FLAT, norm="batch", residual=False),
    "fusion": fusion.Config(**SHAPE),
    "wavelet": wavelet.Config(channels=(8, 12), strides=(2, 2)),
}
SWIN = swinunetr.Config(feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=2)


def make_spark(settings):
    torch.manual_seed(0)
    return Spark(Config(mask_ratio=0.6, decoder="light"), settings.build(1))


def volumes(settings, batch=2):
    size = (64, 64, 128) if settings is SWIN else (16, 16, 16)
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(0))


def crops(settings):
    x = volumes(settings)
    b, _, *size = x.shape
    affine = torch.eye(4).expand(b, 1, 4, 4)
    return Crops(x[:, None], torch.zeros(b, 1, 3).long(), torch.tensor([size] * b), affine, torch.arange(b))


def check_no_leak(settings, batch=2):
    spark, x = make_spark(settings), volumes(settings, batch)
    visible, _ = spark.sample_mask(x)
    other = torch.where(upsample_mask(visible, tuple(x.shape[2:])), x, torch.rand_like(x))
    with torch.no_grad():
        spark.eval()
        assert (spark.reconstruct(x, visible) - spark.reconstruct(other, visible)).abs().max() == 0


@pytest.mark.parametrize("name", ENCODERS)
def test_hidden_voxels_do_not_affect_the_reconstruction(name):
    check_no_leak(ENCODERS[name])


@pytest.mark.slow
def test_hidden_voxels_do_not_affect_the_reconstruction_of_an_encoder_with_unmasked_layers(caplog):
    check_no_leak(SWIN, batch=1)
    assert "treat hidden patches as zeros" in caplog.text


class SeesEverything(VisibleBlocks):
    """Uses halos of hidden neighbours as well, like an encoder without a mask."""

    def conv(self, conv, x):
        dense = Executor().conv(conv, self.volume) if x is self.features else conv(self.to_dense(x))
        return self.to_features(dense)

    def to_features(self, x):
        self.volume, self.features = x, super().to_features(x)
        return self.features


# The first convolution of the other encoders reads one patch only, or not the volume itself.
@pytest.mark.parametrize("name", [n for n in ENCODERS if n.startswith(("residual", "segresnet", "dynunet"))])
def test_an_encoder_that_reads_hidden_patches_is_caught(name, monkeypatch):
    monkeypatch.setattr(base, "VisibleBlocks", SeesEverything)
    with pytest.raises(AssertionError):
        check_no_leak(ENCODERS[name])


@pytest.mark.parametrize("name", ENCODERS)
def test_visible_patches_alone_give_the_loss_and_gradients_of_the_masked_network(name):
    steps = []
    for dense in (True, False):
        spark = make_spark(ENCODERS[name]).double()
        spark.encoder.dense = dense
        x = volumes(ENCODERS[name]).double()
        visible, body = spark.sample_mask(x)
        loss = spark.compute_loss(spark.reconstruct(x, visible).double(), x, visible, body).loss
        loss.backward()
        steps.append([loss.detach(), *(p.grad for p in spark.encoder.parameters())])
    for actual, expected in zip(*steps, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ENCODERS)
def test_trained_weights_load_strictly_into_the_plain_network(name):
    settings = ENCODERS[name]
    spark = make_spark(settings)
    spark.step(crops(settings)).loss.backward()
    assert all(p.grad.isfinite().all() for p in spark.encoder.parameters())
    trained, plain = spark.transferable()["encoder"].eval(), settings.build(1).eval()
    plain.load_state_dict(trained.state_dict(), strict=True)
    x = volumes(settings)
    assert all(torch.equal(a, b) for a, b in zip(trained(x), plain(x), strict=True))
