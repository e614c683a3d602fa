"""LAMB follows its formulas, every weight gets the configured learning rate, and frozen weights do not change."""

import copy

import pytest
import torch

from medssl.nn.encoder import ResEncoder
from medssl.objectives.contrastive.global_local import Config as ContrastConfig
from medssl.objectives.contrastive.global_local import GlobalLocal
from medssl.objectives.reconstruction.spark import Config, Spark
from medssl.tasks.segment import Config as SegmentConfig
from medssl.tasks.segment import SegmentTask
from medssl.training.config import TrainConfig
from medssl.training.lightning_module import LitTraining
from medssl.training.optimizers import Lamb, build_optimizer, find_finest_levels, group_parameters
from medssl.training.semi_supervised.config import SemiSupervisedConfig
from medssl.training.semi_supervised.mean_teacher import MeanTeacher
from medssl.training.trainer import train
from tests.helpers.toy_training import make_batch, make_encoder, make_loaders, make_spark, open_run


def lamb_by_hand(w, gradients, lr, decay, eps=1e-6):
    """Algorithm 2 of the paper, in double precision."""
    w, m, v = w.double(), torch.zeros_like(w).double(), torch.zeros_like(w).double()
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + eps)
        u = r + decay * w
        w = w - lr * w.norm() / u.norm() * u
    return w


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 1, 2)])
def test_lamb_follows_its_formulas(shape):
    g = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=g))
    gradients = [torch.randn(shape, generator=g) for _ in range(7)]
    expected = lamb_by_hand(weight.detach(), gradients, 0.01, 0.1)
    optimizer = Lamb([weight], lr=0.01, weight_decay=0.1)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
    assert torch.allclose(weight.double(), expected, atol=1e-6)


def test_a_step_of_lamb_is_as_long_as_its_share_of_the_weight_whatever_the_gradient():
    for size in (1e-3, 1.0, 1e3):
        weight = torch.nn.Parameter(torch.full((4, 4), 2.0))
        weight.grad = torch.full((4, 4), size)
        Lamb([weight], lr=0.1, weight_decay=0.01).step()
        assert torch.allclose(weight, torch.full((4, 4), 1.8), atol=1e-4)


def test_without_decay_lamb_is_adam():
    start = torch.randn(5, generator=torch.Generator().manual_seed(1))
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    optimizers = [Lamb([weights[0]], lr=0.1, weight_decay=0), torch.optim.Adam([weights[1]], lr=0.1, eps=1e-6)]
    for n in range(4):
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = torch.sin(torch.arange(5.0) + n)
            optimizer.step()
    assert torch.allclose(*weights, atol=1e-6)


def test_a_weight_that_is_zero_still_moves_under_lamb():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    Lamb([weight], lr=0.1, weight_decay=0.1).step()
    assert torch.allclose(weight, torch.full((2, 2), -0.1), atol=1e-5)


def list_rates(learner: torch.nn.Module, config: TrainConfig) -> dict[str, tuple[float, float]]:
    groups = {
        id(w): (group["lr"], group["weight_decay"])
        for group in group_parameters(learner, config)
        for w in group["params"]
    }
    return {name: groups[id(w)] for name, w in learner.named_parameters() if w.requires_grad}


def test_each_weight_acts_first_on_its_own_level():
    levels = find_finest_levels(make_encoder())
    assert levels["stem.conv.weight"] == 0 and levels["levels.0.0.first.conv.weight"] == 0
    assert {n: levels[n] for n in levels if n.startswith("levels.")} == {
        n: int(n.split(".")[1]) for n in levels if n.startswith("levels.")
    }


def test_finding_levels_leaves_the_encoder_unchanged():
    for norm in ("instance", "batch"):
        encoder = ResEncoder((4, 8), (1, 2), norm=norm)
        before = copy.deepcopy(encoder.state_dict())
        find_finest_levels(encoder)
        assert encoder.training and all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())


def test_finer_levels_learn_slower_and_the_rest_at_full_rate():
    rates = list_rates(make_spark(), TrainConfig(lr=1.0, encoder_lr_scale=0.5, layer_decay=0.5))
    assert rates["encoder.stem.conv.weight"][0] == pytest.approx(0.5 * 0.5**3)
    assert rates["encoder.levels.1.0.first.conv.weight"][0] == pytest.approx(0.5 * 0.5**2)
    assert rates["encoder.levels.2.0.first.conv.weight"][0] == pytest.approx(0.5 * 0.5)
    assert {rate for name, (rate, _) in rates.items() if not name.startswith("encoder.")} == {1.0}


def test_fresh_heads_learn_fast_coarse_levels_slowly_and_finest_levels_in_between():
    torch.manual_seed(0)
    task = SegmentTask(SegmentConfig(), make_encoder(), 3, (32, 32, 32))
    discriminative = TrainConfig(lr=1.0, head_lr_scale=5.0, finest_lr_scale=0.5, coarser_lr_scale=0.05)
    for learner, student in (
        (task, ""),
        (MeanTeacher(task, SemiSupervisedConfig(method="mean-teacher"), discriminative), "student."),
    ):
        rates = {name: rate for name, (rate, _) in list_rates(learner, discriminative).items()}
        assert rates["encoder.stem.conv.weight"] == rates["encoder.levels.0.0.first.conv.weight"] == 0.5
        assert rates["encoder.levels.1.0.first.conv.weight"] == rates["encoder.levels.2.0.first.conv.weight"] == 0.05
        assert rates[f"{student}decoder.ups.0.weight"] == rates[f"{student}decoder.merges.0.0.weight"] == 0.5
        assert rates[f"{student}decoder.ups.1.weight"] == rates[f"{student}decoder.merges.1.0.weight"] == 0.05
        assert rates[f"{student}heads.0.conv.weight"] == rates[f"{student}heads.2.conv.bias"] == 5.0


def test_without_layer_decay_two_learning_rates_and_two_decays_make_four_groups():
    config = TrainConfig(lr=1.0, encoder_lr_scale=0.1, weight_decay=0.3)
    rates = list_rates(make_spark(), config)
    assert {rates[n] for n in rates if n.startswith("encoder.")} == {(0.1, 0.3), (0.1, 0.0)}
    assert {rates[n] for n in rates if not n.startswith("encoder.")} == {(1.0, 0.3), (1.0, 0.0)}
    assert all(rates[name][1] == 0 for name in rates if "norm" in name or name.endswith(("token", "bias")))


def test_the_config_selects_the_optimizer():
    assert isinstance(build_optimizer(make_spark(), TrainConfig()), torch.optim.AdamW)
    lamb = build_optimizer(make_spark(), TrainConfig(optimizer="lamb", beta1=0.8, beta2=0.95))
    assert isinstance(lamb, Lamb) and {group["betas"] for group in lamb.param_groups} == {(0.8, 0.95)}
    sgd = build_optimizer(make_spark(), TrainConfig(optimizer="sgd", momentum=0.98))
    assert isinstance(sgd, torch.optim.SGD)
    assert {(group["momentum"], group["nesterov"]) for group in sgd.param_groups} == {(0.98, True)}


@pytest.mark.parametrize(
    "options", [{"optimizer": "lamb"}, {"optimizer": "sgd"}, {"layer_decay": 0.7}, {"beta2": 0.95}]
)
def test_a_network_learns_under_every_choice(options):
    learner, losses = make_spark().train(False), []
    optimizer = build_optimizer(learner, TrainConfig(lr=1e-2, **options))
    for _ in range(6):
        optimizer.zero_grad()
        loss = learner.step(make_batch(0)).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.005


SHORT = TrainConfig(epochs=2, steps_per_epoch=2, lr=1e-2)


def make_batch_normed() -> Spark:
    torch.manual_seed(0)
    return Spark(Config(), ResEncoder((4, 8, 8), (1, 2, 2), norm="batch"))


def changed_parts(learner: torch.nn.Module, before: dict) -> set[str]:
    return {k.partition(".")[0] for k, v in learner.state_dict().items() if not torch.equal(v, before[k])}


def test_a_frozen_encoder_stays_bit_for_bit_with_its_running_moments_and_average(tmp_path):
    learner = make_batch_normed()
    before = copy.deepcopy(learner.state_dict())
    config = SHORT.model_copy(update={"freeze_fraction": 1.0, "ema_decay": 0.9})
    train(learner, make_loaders(2), open_run(tmp_path / "run"), config)
    assert "encoder" not in changed_parts(learner, before) and {"decoder", "head"} <= changed_parts(learner, before)


def test_the_encoder_changes_after_its_frozen_steps_and_not_before(tmp_path):
    learner, has_changed = make_batch_normed(), []
    before = copy.deepcopy(learner.state_dict())
    after_step = learner.after_step

    def record_change() -> None:
        has_changed.append("encoder" in changed_parts(learner, before))
        after_step()

    learner.after_step = record_change
    config = SHORT.model_copy(update={"schedule": "sawtooth", "freeze_fraction": 0.5})
    train(learner, make_loaders(2), open_run(tmp_path / "run"), config)
    assert has_changed == [False] * 2 + [True] * 2


def test_an_encoder_that_an_objective_froze_keeps_its_running_moments(tmp_path):
    torch.manual_seed(0)
    learner = GlobalLocal(ContrastConfig(stage="local", num_regions=2), ResEncoder((4, 8, 8), (1, 2, 2), norm="batch"))
    before = copy.deepcopy(learner.state_dict())
    train(learner, make_loaders(2), open_run(tmp_path / "run"), SHORT)
    assert "encoder" not in changed_parts(learner, before) and "decoder" in changed_parts(learner, before)
    assert not any(p.requires_grad for p in learner.encoder.parameters())


def test_the_average_is_a_copy_with_its_own_encoder_weights():
    module = LitTraining(make_spark(), SHORT)
    twin = copy.deepcopy(module)
    assert all(a is not b for a, b in zip(module.encoder_weights, twin.encoder_weights, strict=True))
    assert {id(w) for w in twin.encoder_weights} <= {id(w) for w in twin.learner.encoder.parameters()}
