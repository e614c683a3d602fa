"""SparK rebuilds hidden cells from visible ones, and from nothing else."""

import pytest
import torch

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.nn.executor import enlarge
from medssl.objectives import spark
from medssl.objectives.spark import Config, Spark, normalised


def objective(decoder="unet", ratio=0.75, seed=0, strides=(1, 2, 2)):
    torch.manual_seed(seed)
    return Spark(Config(decoder=decoder, ratio=ratio, seed=seed), ResEncoder((8, 16, 32), strides))


def crops(b=2, size=(16, 16, 16), seed=0):
    """Smooth blobs in noise-free air: a neighbour tells much of a voxel."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(0, 1, n) for n in size), indexing="ij")
    x = torch.zeros(b, 1, 1, *size)
    for n in range(b):
        for _ in range(6):
            centre, width = torch.rand(3, generator=generator), 0.1 + 0.2 * torch.rand(1, generator=generator)
            apart = sum((a - c).square() for a, c in zip(axes, centre, strict=True))
            x[n] += torch.exp(-apart / width.square() / 2)
    x = x / x.amax()
    corner = torch.zeros(b, 1, 3, dtype=torch.int64)
    return Crops(x, corner, torch.tensor([size] * b), torch.eye(4).expand(b, 1, 4, 4), torch.arange(b))


@pytest.mark.parametrize("decoder", ["light", "unet"])
def test_hidden_voxels_do_not_reach_what_is_rebuilt(decoder):
    learner = objective(decoder)
    x = crops().x[:, 0]
    keep, _ = learner.mask(x)
    visible = enlarge(keep, (16, 16, 16))
    other = torch.where(visible, x, torch.rand_like(x))
    assert torch.equal(learner.rebuild(x, keep), learner.rebuild(other, keep))


def test_only_hidden_body_cells_count_in_the_loss():
    learner = objective()
    x = crops().x[:, 0]
    x[:, :, :4] = 0
    keep, body = learner.mask(x)
    assert not body[:, :, 0].any()
    rebuilt = torch.randn_like(x)
    loss = learner.score(rebuilt, x, keep, body).loss
    hidden = enlarge(body & ~keep, (16, 16, 16))
    elsewhere = torch.where(hidden, rebuilt, rebuilt + 5)
    assert torch.equal(learner.score(elsewhere, x, keep, body).loss, loss)
    inside = torch.where(hidden, rebuilt + 5, rebuilt)
    assert learner.score(inside, x, keep, body).loss > loss + 1


def test_a_perfect_rebuild_costs_nothing_and_each_cells_mean_costs_flat():
    learner = objective()
    x = crops().x[:, 0]
    keep, body = learner.mask(x)
    target, mean, std = normalised(x, learner.encoder.cell)
    assert learner.score(target, x, keep, body).loss == 0
    assert torch.allclose(target * std + mean, x, atol=1e-6)
    step = learner.score(torch.zeros_like(x), x, keep, body)
    assert step.loss == step.logs["flat"] and 0.9 < step.loss < 1


def test_cells_are_normalised_each_for_itself():
    x = torch.rand(1, 2, 8, 8, 8)
    target, _, _ = normalised(x, (4, 4, 4))
    cell = target[0, 1, 4:, :4, 4:]
    assert abs(cell.mean()) < 1e-5 and abs(cell.var(correction=0) - 1) < 1e-3


def test_a_seed_repeats_the_step_and_the_next_one_differs():
    first, again = objective(), objective()
    losses = [learner.step(crops()).loss for learner in (first, again, first)]
    assert losses[0] == losses[1] != losses[2]


def test_every_weight_gets_a_gradient_and_logs_are_detached():
    learner = objective(ratio=(0.4, 0.7))
    step = learner.step(crops())
    step.loss.backward()
    silent = [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [n for n in silent if not n.startswith("decoder.ups") and "densify.2.norm" not in n]
    assert step.logs.keys() == {"hidden", "visible", "flat", "kept"}
    assert not any(value.requires_grad for value in step.logs.values())


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["light", "unet"])
def test_it_learns_more_than_each_cells_mean(decoder):
    learner = objective(decoder, ratio=0.6)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    for n in range(60):
        step = learner.step(crops(4, seed=n))
        optimiser.zero_grad()
        step.loss.backward()
        optimiser.step()
    learner.eval()
    step = learner.step(crops(8, seed=1000))
    assert step.loss < 0.7 * step.logs["flat"]


def test_the_decoder_transfers_when_it_is_the_downstream_one():
    assert objective("unet").transferable().keys() == {"encoder", "decoder"}
    assert objective("light").transferable().keys() == {"encoder"}


def test_a_preview_shows_what_was_seen_and_rebuilds_only_the_rest():
    learner = objective().eval()
    shown = learner.preview(crops())
    seen = shown["visible"] != 0
    assert shown.keys() == {"input", "visible", "rebuilt"}
    assert torch.equal(shown["input"][seen], shown["rebuilt"][seen])
    assert 0.1 < seen.float().mean() < 0.4
    assert not torch.equal(shown["input"], shown["rebuilt"])
    assert torch.equal(learner.preview(crops())["visible"], shown["visible"])


def test_too_few_cells_are_refused_with_what_would_do():
    with pytest.raises(BadInput, match=r"has 8 cells.*at least \(12, 12, 8\), or 2 of the encoder's 3 stages"):
        objective(strides=(1, 2, 2)).step(crops(size=(8, 8, 8)))


@pytest.mark.parametrize("wrong", [{"ratio": 0.0}, {"ratio": 1.0}, {"ratio": (0.9, 0.6)}, {"rato": 0.7}])
def test_a_config_out_of_range_is_refused(wrong):
    with pytest.raises(BadInput):
        config.check(wrong, Config, "spark")


def test_the_module_has_one_objective():
    assert [c for c in vars(spark).values() if isinstance(c, type) and issubclass(c, spark.Objective)] == [
        spark.Objective,
        Spark,
    ]
