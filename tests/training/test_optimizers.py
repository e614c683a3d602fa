"""LAMB descends as its formulas say, every weight gets the learning rate it should, and what is frozen stays."""

import copy

import pytest
import torch

from medssl.nn.encoder import ResEncoder
from medssl.objectives.global_local import Config as ContrastConfig
from medssl.objectives.global_local import GlobalLocal
from medssl.objectives.spark import Config, Spark
from medssl.tasks.segment import Config as SegmentConfig
from medssl.tasks.segment import Segment
from medssl.training.config import Plan
from medssl.training.lightning_module import Training
from medssl.training.optimizers import Lamb, acting, groups, optimizer
from medssl.training.semi_supervised.mean_teacher import Taught, Unlabelled
from medssl.training.trainer import fit
from tests.helpers.toy_training import batch, encoder, loader, run, spark


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
def test_lamb_descends_by_its_formulas(shape):
    g = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=g))
    gradients = [torch.randn(shape, generator=g) for _ in range(7)]
    wanted = lamb_by_hand(weight.detach(), gradients, 0.01, 0.1)
    rule = Lamb([weight], lr=0.01, weight_decay=0.1)
    for gradient in gradients:
        weight.grad = gradient
        rule.step()
    assert torch.allclose(weight.double(), wanted, atol=1e-6)


def test_a_step_of_lamb_is_as_long_as_its_share_of_the_weight_whatever_the_gradient():
    for size in (1e-3, 1.0, 1e3):
        weight = torch.nn.Parameter(torch.full((4, 4), 2.0))
        weight.grad = torch.full((4, 4), size)
        Lamb([weight], lr=0.1, weight_decay=0.01).step()
        assert torch.allclose(weight, torch.full((4, 4), 1.8), atol=1e-4)


def test_without_decay_lamb_is_adam():
    start = torch.randn(5, generator=torch.Generator().manual_seed(1))
    weights = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    rules = [Lamb([weights[0]], lr=0.1, weight_decay=0), torch.optim.Adam([weights[1]], lr=0.1, eps=1e-6)]
    for n in range(4):
        for weight, rule in zip(weights, rules, strict=True):
            weight.grad = torch.sin(torch.arange(5.0) + n)
            rule.step()
    assert torch.allclose(*weights, atol=1e-6)


def test_a_weight_that_is_zero_still_moves_under_lamb():
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    Lamb([weight], lr=0.1, weight_decay=0.1).step()
    assert torch.allclose(weight, torch.full((2, 2), -0.1), atol=1e-5)


def rates(learner: torch.nn.Module, plan: Plan) -> dict[str, tuple[float, float]]:
    known = {id(w): (group["lr"], group["weight_decay"]) for group in groups(learner, plan) for w in group["params"]}
    return {name: known[id(w)] for name, w in learner.named_parameters() if w.requires_grad}


def test_each_weight_acts_first_on_its_own_level():
    levels = acting(encoder())
    assert levels["stem.conv.weight"] == 0 and levels["levels.0.0.first.conv.weight"] == 0
    assert {n: levels[n] for n in levels if n.startswith("levels.")} == {
        n: int(n.split(".")[1]) for n in levels if n.startswith("levels.")
    }


def test_asking_where_weights_act_leaves_the_encoder_as_it_was():
    for norm in ("instance", "batch"):
        body = ResEncoder((4, 8), (1, 2), norm=norm)
        before = copy.deepcopy(body.state_dict())
        acting(body)
        assert body.training and all(torch.equal(before[k], v) for k, v in body.state_dict().items())


def test_finer_levels_learn_slower_and_the_rest_at_full_rate():
    found = rates(spark(), Plan(lr=1.0, encoder_lr=0.5, layer_decay=0.5))
    assert found["encoder.stem.conv.weight"][0] == pytest.approx(0.5 * 0.5**3)
    assert found["encoder.levels.1.0.first.conv.weight"][0] == pytest.approx(0.5 * 0.5**2)
    assert found["encoder.levels.2.0.first.conv.weight"][0] == pytest.approx(0.5 * 0.5)
    assert {rate for name, (rate, _) in found.items() if not name.startswith("encoder.")} == {1.0}


def test_fresh_heads_learn_fast_what_tells_places_slowly_and_edges_in_between():
    torch.manual_seed(0)
    task = Segment(SegmentConfig(), encoder(), 3, (32, 32, 32))
    gentle = Plan(lr=1.0, heads_lr=5.0, finest_lr=0.5, coarser_lr=0.05)
    for learner, student in ((task, ""), (Taught(task, Unlabelled(name="mean-teacher"), gentle), "student.")):
        found = {name: rate for name, (rate, _) in rates(learner, gentle).items()}
        assert found["encoder.stem.conv.weight"] == found["encoder.levels.0.0.first.conv.weight"] == 0.5
        assert found["encoder.levels.1.0.first.conv.weight"] == found["encoder.levels.2.0.first.conv.weight"] == 0.05
        assert found[f"{student}decoder.ups.0.weight"] == found[f"{student}decoder.merges.0.0.weight"] == 0.5
        assert found[f"{student}decoder.ups.1.weight"] == found[f"{student}decoder.merges.1.0.weight"] == 0.05
        assert found[f"{student}heads.0.conv.weight"] == found[f"{student}heads.2.conv.bias"] == 5.0


def test_without_layer_decay_two_learning_rates_and_two_decays_make_four_groups():
    plan = Plan(lr=1.0, encoder_lr=0.1, weight_decay=0.3)
    found = rates(spark(), plan)
    assert {found[n] for n in found if n.startswith("encoder.")} == {(0.1, 0.3), (0.1, 0.0)}
    assert {found[n] for n in found if not n.startswith("encoder.")} == {(1.0, 0.3), (1.0, 0.0)}
    assert all(found[name][1] == 0 for name in found if "norm" in name or name.endswith(("token", "bias")))


def test_the_plan_names_the_optimiser():
    assert isinstance(optimizer(spark(), Plan()), torch.optim.AdamW)
    assert isinstance(optimizer(spark(), Plan(optimizer="lamb")), Lamb)


@pytest.mark.parametrize("how", [{"optimizer": "lamb"}, {"layer_decay": 0.7}])
def test_a_network_learns_under_every_choice(how):
    learner, losses = spark().train(False), []
    rule = optimizer(learner, Plan(lr=1e-2, **how))
    for _ in range(6):
        rule.zero_grad()
        loss = learner.step(batch(0)).loss
        loss.backward()
        rule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.005


SHORT = Plan(epochs=2, steps=2, lr=1e-2)


def batch_normed() -> Spark:
    torch.manual_seed(0)
    return Spark(Config(), ResEncoder((4, 8, 8), (1, 2, 2), norm="batch"))


def moved(learner: torch.nn.Module, before: dict) -> set[str]:
    return {k.partition(".")[0] for k, v in learner.state_dict().items() if not torch.equal(v, before[k])}


def test_a_frozen_encoder_stays_bit_for_bit_with_its_running_moments_and_average(tmp_path):
    learner = batch_normed()
    before = copy.deepcopy(learner.state_dict())
    fit(learner, SHORT.model_copy(update={"freeze": 1.0, "ema": 0.9}), run(tmp_path / "run"), loader(2))
    assert "encoder" not in moved(learner, before) and {"decoder", "head"} <= moved(learner, before)


def test_the_encoder_moves_after_its_frozen_share_and_not_before(tmp_path):
    learner, seen = batch_normed(), []
    before = copy.deepcopy(learner.state_dict())
    inner = learner.after_step

    def watched() -> None:
        seen.append("encoder" in moved(learner, before))
        inner()

    learner.after_step = watched
    plan = SHORT.model_copy(update={"schedule": "sawtooth", "freeze": 0.5})
    fit(learner, plan, run(tmp_path / "run"), loader(2))
    assert seen == [False] * 2 + [True] * 2


def test_an_encoder_that_an_objective_froze_keeps_its_running_moments(tmp_path):
    torch.manual_seed(0)
    learner = GlobalLocal(ContrastConfig(stage="local", regions=2), ResEncoder((4, 8, 8), (1, 2, 2), norm="batch"))
    before = copy.deepcopy(learner.state_dict())
    fit(learner, SHORT, run(tmp_path / "run"), loader(2))
    assert "encoder" not in moved(learner, before) and "decoder" in moved(learner, before)
    assert not any(p.requires_grad for p in learner.encoder.parameters())


def test_the_average_is_a_copy_with_a_body_of_its_own():
    module = Training(spark(), SHORT)
    twin = copy.deepcopy(module)
    assert all(a is not b for a, b in zip(module.body, twin.body, strict=True))
    assert {id(w) for w in twin.body} <= {id(w) for w in twin.learner.encoder.parameters()}
