"""Tests that SparK reconstructs hidden patches from visible ones, and from nothing else."""

from dataclasses import replace

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.decoder import LightDecoder
from medssl.nn.encoder import ResEncoder
from medssl.nn.executor import upsample_mask
from medssl.nn.patches import normalize_patches
from medssl.objectives.reconstruction.spark import Config, Spark


def objective(decoder="unet", ratio=0.75, seed=0, strides=(1, 2, 2)):
    torch.manual_seed(seed)
    return Spark(Config(decoder=decoder, mask_ratio=ratio, seed=seed), ResEncoder((8, 16, 32), strides))


def crops(b=2, size=(16, 16, 16), seed=0):
    """Returns smooth blobs in noise-free air, where neighbouring voxels are highly correlated."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(0, 1, n) for n in size), indexing="ij")
    x = torch.zeros(b, 1, 1, *size)
    for n in range(b):
        for _ in range(6):
            centre, width = torch.rand(3, generator=generator), 0.1 + 0.2 * torch.rand(1, generator=generator)
            squared_distance = sum((a - c).square() for a, c in zip(axes, centre, strict=True))
            x[n] += torch.exp(-squared_distance / width.square() / 2)
    x = x / x.amax()
    corner = torch.zeros(b, 1, 3, dtype=torch.int64)
    return Crops(x, corner, torch.tensor([size] * b), torch.eye(4).expand(b, 1, 4, 4), torch.arange(b))


@pytest.mark.parametrize("decoder", ["light", "unet"])
def test_hidden_voxels_do_not_affect_the_reconstruction(decoder):
    model = objective(decoder)
    x = crops().x[:, 0]
    visible, _ = model.sample_mask(x)
    mask = upsample_mask(visible, (16, 16, 16))
    other = torch.where(mask, x, torch.rand_like(x))
    assert torch.equal(model.reconstruct(x, visible), model.reconstruct(other, visible))


def test_only_hidden_body_patches_count_in_the_loss():
    model = objective()
    x = crops().x[:, 0]
    x[:, :, :4] = 0
    visible, body = model.sample_mask(x)
    assert not body[:, :, 0].any()
    rebuilt = torch.randn_like(x)
    loss = model.compute_loss(rebuilt, x, visible, body).loss
    hidden = upsample_mask(body & ~visible, (16, 16, 16))
    elsewhere = torch.where(hidden, rebuilt, rebuilt + 5)
    assert torch.equal(model.compute_loss(elsewhere, x, visible, body).loss, loss)
    inside = torch.where(hidden, rebuilt + 5, rebuilt)
    assert model.compute_loss(inside, x, visible, body).loss > loss + 1


def test_a_perfect_reconstruction_has_no_loss_and_patch_means_have_the_loss_flat():
    model = objective()
    x = crops().x[:, 0]
    visible, body = model.sample_mask(x)
    target, mean, std = normalize_patches(x, model.encoder.patch)
    assert model.compute_loss(target, x, visible, body).loss == 0
    assert torch.allclose(target * std + mean, x, atol=1e-6)
    step = model.compute_loss(torch.zeros_like(x), x, visible, body)
    assert step.loss == step.logs["flat"] and 0.9 < step.loss < 1


def test_each_patch_is_normalised_separately():
    x = torch.rand(1, 2, 8, 8, 8)
    target, _, _ = normalize_patches(x, (4, 4, 4))
    patch = target[0, 1, 4:, :4, 4:]
    assert abs(patch.mean()) < 1e-5 and abs(patch.var(correction=0) - 1) < 1e-3


def test_a_seed_repeats_the_step_and_the_next_one_differs():
    first, second = objective(), objective()
    losses = [model.step(crops()).loss for model in (first, second, first)]
    assert losses[0] == losses[1] != losses[2]


def test_every_weight_gets_a_gradient_and_logs_are_detached():
    model = objective(ratio=(0.4, 0.7))
    step = model.step(crops())
    step.loss.backward()
    untrained = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [n for n in untrained if not n.startswith("decoder.ups") and "densify.2.norm" not in n]
    assert step.logs.keys() == {"hidden", "visible", "flat", "kept"}
    assert not any(value.requires_grad for value in step.logs.values())


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["light", "unet"])
def test_it_learns_more_than_patch_means(decoder):
    model = objective(decoder, ratio=0.6)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for n in range(60):
        step = model.step(crops(4, seed=n))
        optimiser.zero_grad()
        step.loss.backward()
        optimiser.step()
    model.eval()
    step = model.step(crops(8, seed=1000))
    assert step.loss < 0.7 * step.logs["flat"]


@pytest.mark.parametrize("densify", ["convolution", "token"])
def test_a_decoder_is_handed_over_only_if_it_has_read_what_finetuning_feeds_it(densify):
    """Without hidden patches, what the decoder reads here must be the maps of the encoder itself."""
    torch.manual_seed(0)
    model = Spark(Config(densify=densify, decoder="unet"), ResEncoder((8, 16, 32), (1, 2, 2))).eval()
    x, read = crops().x[:, 0], []
    model.decoder.register_forward_pre_hook(lambda module, inputs: read.extend(inputs[0]))
    model.reconstruct(x, torch.ones(2, 1, 4, 4, 4, dtype=torch.bool))
    reads_maps = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(read, model.encoder(x), strict=True))
    assert reads_maps == (densify == "token")
    assert ("decoder" in model.transferable()) == reads_maps


def test_the_default_decoder_is_light_unless_finetuning_can_use_it():
    """The one that is discarded must not cost more than the encoder."""
    sizes = {}
    for name, chosen in {"default": Config(), "token": Config(densify="token")}.items():
        model = Spark(chosen, ResEncoder((8, 16, 32), (1, 2, 2)))
        sizes[name] = sum(p.numel() for p in model.decoder.parameters())
    assert isinstance(Spark(Config(), ResEncoder((8, 16), (1, 2))).decoder, LightDecoder)
    assert sizes["default"] * 10 < sizes["token"]


def test_a_light_decoder_is_never_handed_over():
    assert objective("light").transferable().keys() == {"encoder"}
    with pytest.raises(ValueError, match="give decoder=unet"):
        Config(decoder="light", densify="token")


@pytest.mark.parametrize("show_air", [False, True])
def test_air_is_shown_as_in_finetuning_if_asked_and_never_counts_in_the_loss(show_air):
    torch.manual_seed(0)
    model = Spark(Config(show_air=show_air), ResEncoder((8, 16, 32), (1, 2, 2)))
    x = crops().x[:, 0]
    x[:, :, :8] = 0
    visible, body = model.sample_mask(x)
    assert not body[:, :, :2].any() and (visible[~body] == show_air).all()
    assert (body & visible).any() and (body & ~visible).any()
    rebuilt = torch.randn_like(x)
    other = torch.where(upsample_mask(body, (16, 16, 16)), rebuilt, rebuilt + 5)
    assert torch.equal(*(model.compute_loss(r, x, visible, body).loss for r in (rebuilt, other)))


@pytest.mark.parametrize(
    ("patch_mm", "patch"), [(None, (4, 4, 4)), (2.0, (2, 2, 1)), (8.0, (8, 8, 2)), (3.0, (4, 4, 1))]
)
@pytest.mark.parametrize("densify", ["convolution", "token"])
def test_a_patch_has_its_size_in_mm_and_hidden_voxels_do_not_leak(densify, patch_mm, patch):
    """Voxels of 1 x 1 x 3 mm; the encoder's total stride is 4 x 4 x 4 voxels."""
    torch.manual_seed(0)
    model = Spark(Config(densify=densify, patch_mm=patch_mm), ResEncoder((8, 16, 32), (1, 2, 2))).eval()
    size = (16, 16, 16)
    x = crops(size=size).x[:, 0]
    visible, body = model.sample_mask(x, (1.0, 1.0, 3.0))
    assert visible.shape[2:] == tuple(n // p for n, p in zip(size, patch, strict=True))
    other = torch.where(upsample_mask(visible, size), x, torch.rand_like(x))
    rebuilt = model.reconstruct(x, visible)
    assert torch.equal(rebuilt, model.reconstruct(other, visible))
    model.compute_loss(rebuilt, x, visible, body).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.encoder.parameters())


def test_the_spacing_of_crops_decides_the_size_of_a_patch():
    batch = crops(size=(16, 16, 16))
    thick = replace(batch, affine=batch.affine * torch.tensor([1.0, 1.0, 4.0, 1.0]))
    assert thick.spacing_mm() == (1, 1, 4)
    step = Spark(Config(patch_mm=4.0), ResEncoder((8, 16, 32), (1, 2, 2))).step(thick)
    assert step.loss.isfinite()


def test_a_preview_has_the_visible_voxels_and_reconstructs_hidden_ones_only():
    model = objective().eval()
    volumes = model.preview(crops())
    is_visible = volumes["visible"] != 0
    assert volumes.keys() == {"input", "visible", "rebuilt"}
    assert torch.equal(volumes["input"][is_visible], volumes["rebuilt"][is_visible])
    assert 0.1 < is_visible.float().mean() < 0.4
    assert not torch.equal(volumes["input"], volumes["rebuilt"])
    assert torch.equal(model.preview(crops())["visible"], volumes["visible"])


def test_too_few_patches_are_refused_with_sufficient_sizes():
    with pytest.raises(BadInput, match=r"has 8 patches.*at least \(12, 12, 8\), or 2 of the encoder's 3 stages"):
        objective(strides=(1, 2, 2)).step(crops(size=(8, 8, 8)))


@pytest.mark.parametrize(
    "wrong", [{"mask_ratio": 0.0}, {"mask_ratio": 1.0}, {"mask_ratio": (0.9, 0.6)}, {"mask_rato": 0.7}]
)
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(BadInput):
        config.check(wrong, Config, "spark")
