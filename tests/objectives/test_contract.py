"""Tests that every objective fulfils the same contract, which detects objectives with planted faults."""

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from medssl import config, objectives
from medssl.data.crops import Crops
from medssl.nn.encoder import ResEncoder
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.objectives.reconstruction.mae import Config as MaeConfig
from medssl.objectives.reconstruction.mae import Mae
from tests.helpers.objectives import PATHS, build_objective

NAMES = sorted(PATHS)
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "pretrain"
SHAPE = (16, 16, 24)


def encoder():
    torch.manual_seed(0)
    return ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2)


def crops(views, seed=0):
    """Returns overlapping crops of four smooth scans of different sizes; two scans have the same field of view."""
    g = torch.Generator().manual_seed(seed)
    size = torch.tensor([[30, 40, 60], [31, 38, 64], [70, 40, 90], [16, 16, 24]])
    corner = (torch.rand(4, views, 3, generator=g) * (size[:, None] - torch.tensor(SHAPE) + 1)).long()
    affine = torch.eye(4).repeat(4, views, 1, 1)
    affine[:, :, :3, 3] = corner.float()
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in SHAPE], indexing="ij"))
    place = corner[..., None, None, None] + index
    waves = 0.2 + 0.3 * torch.rand(4, 1, 2, 3, generator=g)[..., None, None, None]
    x = 0.5 + 0.4 * (waves * place[:, :, None]).sin().prod(3)
    return Crops(x=x, corner=corner, size=size, affine=affine, volume=torch.tensor([3, 7, 8, 11]))


def check_loss_and_logs(make):
    objective = make()
    step = objective.step(crops(objective.views))
    assert step.loss.shape == () and step.loss.requires_grad and step.loss.isfinite(), "the loss is not a finite scalar"
    for name, value in step.logs.items():
        assert value.shape == () and not value.requires_grad and value.isfinite(), f"{name} is not detached or finite"


def check_gradients(make):
    objective = make()
    objective.step(crops(objective.views)).loss.backward()
    missing = [n for n, p in objective.encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not missing, f"encoder weights without a gradient: {missing}"


def check_learning(make):
    objective = make()
    batch = crops(objective.views)
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 3e-3)
    before = eval_loss(objective, batch)
    for _ in range(4):
        optimizer.zero_grad()
        objective.step(batch).loss.backward()
        optimizer.step()
        objective.after_step()
    assert eval_loss(objective, batch) < 0.95 * before, "the loss does not fall on one batch"


def eval_loss(objective, batch):
    objective.eval()
    with torch.no_grad():
        loss = objective.step(batch).loss.item()
    objective.train()
    return loss


def check_input_and_global_random_state_are_unchanged(make):
    objective = make()
    batch, same, state = crops(objective.views), crops(objective.views), torch.get_rng_state()
    objective.step(batch)
    assert torch.equal(torch.get_rng_state(), state), "the global random generator was used"
    for field in dataclasses.fields(Crops):
        if getattr(same, field.name) is not None:
            assert torch.equal(getattr(batch, field.name), getattr(same, field.name)), f"{field.name} was written to"


def check_a_seed_repeats_the_step(make):
    a, b = make(), make()
    torch.manual_seed(1)
    first = [a.step(crops(a.views)).loss.item() for _ in range(2)]
    torch.manual_seed(2)
    assert [b.step(crops(b.views)).loss.item() for _ in range(2)] == first, "a seed does not repeat the step"


def check_resuming(make):
    a, b = make(), make()
    for _ in range(2):
        a.step(crops(a.views))
        a.after_step()
    b.load_state_dict(a.state_dict())
    assert a.step(crops(a.views)).loss.item() == b.step(crops(b.views)).loss.item(), "a resumed run differs"


def check_one_volume(make):
    objective = make()
    batch = crops(objective.views)
    rows = {f.name: getattr(batch, f.name) for f in dataclasses.fields(Crops)}
    step = objective.step(Crops(**{name: None if rows is None else rows[:1] for name, rows in rows.items()}))
    step.loss.backward()
    gradients = [p.grad for p in objective.parameters() if p.grad is not None]
    assert step.loss.isfinite() and gradients, "a batch of one volume has no loss"
    assert all(g.isfinite().all() for g in gradients), "a batch of one volume has gradients that are not finite"


def check_a_constant_encoder_is_no_minimum(make):
    objective = make()
    if hasattr(objective, "teacher"):
        return  # only the slow teacher keeps predicted features from collapsing; the alarm watches them
    batch = crops(objective.views)
    start = eval_loss(objective, batch)
    for weight in objective.encoder.parameters():
        nn.init.zeros_(weight)
    assert eval_loss(objective, batch) > 0.8 * start, "equal features everywhere have a low loss"


def check_positive_pairs(make):
    objective = make()
    batch = crops(objective.views)
    positive_pairs = objective.step(batch).positive_pairs
    assert (positive_pairs is not None) == objective.is_contrastive, "a contrastive objective returns positive pairs"
    for z in positive_pairs or ():
        assert z.shape == (len(batch.x) * objective.views, positive_pairs[0].shape[1]), "one row for each crop"
        assert not z.requires_grad and z.isfinite().all(), "pairs are not detached or finite"


def check_transfer(make):
    objective = make()
    parts = objective.transferable()
    encoder().load_state_dict(parts["encoder"].state_dict(), strict=True)
    for name, part in parts.items():
        assert isinstance(part, nn.Module), f"{name} is no module"


def check_previews(make):
    objective = make()
    for name, volume in objective.preview(crops(objective.views)).items():
        assert volume.shape == (2, *SHAPE) and volume.isfinite().all() and not volume.requires_grad, name


CHECKS = {name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")}


def make_factory(name):
    return lambda: build_objective(name, encoder())


def test_every_file_of_a_family_can_be_chosen_by_its_name():
    folder = Path(objectives.__path__[0])
    files = sorted(path.stem for path in folder.rglob("*.py") if path.stem not in ("__init__", "base"))
    assert files == NAMES and {"spark", "sum"} <= PATHS.keys()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_every_objective_fulfils_the_contract(name, check):
    CHECKS[check](make_factory(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_config_names_its_file_and_reads_back_equal(name, tmp_path):
    module = import_module(PATHS[name])
    settings = module.Config()
    assert settings.name == name
    (tmp_path / "run.yaml").write_text(config.dump(settings))
    assert config.read(tmp_path / "run.yaml", [], module.Config) == settings


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_packaged_configs_are_valid(path):
    settings = yaml.safe_load(path.read_text())["objective"]
    config.check(settings, import_module(PATHS[settings["name"]]).Config, str(path))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_holds_one_objective(name):
    members = [c for c in vars(import_module(PATHS[name])).values() if isinstance(c, type)]
    classes = [c for c in members if issubclass(c, Objective) and c.__module__ == PATHS[name]]
    assert len(classes) == 1


@pytest.mark.parametrize("name", NAMES)
def test_bf16_gives_a_finite_loss(name):
    objective = make_factory(name)()
    with torch.autocast("cpu", torch.bfloat16):
        step = objective.step(crops(objective.views))
    step.loss.backward()
    assert step.loss.isfinite() and step.loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in objective.encoder.parameters())


class Faulty(Mae):
    """An objective without faults, which the following classes add."""

    def __init__(self) -> None:
        super().__init__(MaeConfig(), encoder())


class NotFinite(Faulty):
    def step(self, crops: Crops) -> Step:
        step = super().step(crops)
        return Step(step.loss / 0, step.logs)


class AttachedLogs(Faulty):
    def step(self, crops: Crops) -> Step:
        step = super().step(crops)
        return Step(step.loss, {"loss": step.loss})


class ForgetsTheCoarsestLevel(Faulty):
    def reconstruct(self, x, visible):
        *fine, coarse = self.encoder(torch.where(visible, x, 0))
        return self.head(self.decoder([*fine, torch.zeros_like(coarse)])[0])


class Climbs(Faulty):
    def step(self, crops: Crops) -> Step:
        step = super().step(crops)
        return Step(10 - step.loss.clamp(max=5) + 2 * (step.loss - step.loss.detach()), step.logs)


class DrawsFromTheGlobalGenerator(Faulty):
    def step(self, crops: Crops) -> Step:
        x = crops.x + 0.3 * torch.rand_like(crops.x)
        return super().step(dataclasses.replace(crops, x=x))


class WritesIntoItsInput(Faulty):
    def step(self, crops: Crops) -> Step:
        crops.x.mul_(0.5)
        return super().step(crops)


class ForgetsItsCounter(Faulty):
    def __init__(self) -> None:
        super().__init__()
        self.draws.register_buffer("made", self.draws.made, persistent=False)


class HandsOnAWrapper(Faulty):
    def transferable(self) -> dict[str, nn.Module]:
        return {"encoder": nn.Sequential(self.encoder)}


class ShowsGradients(Faulty):
    def preview(self, crops):
        return {"input": crops.x[0, 0] * self.head.conv.bias.sum()}


class LikesConstantFeatures(Faulty):
    def step(self, crops: Crops) -> Step:
        return Step(self.encoder(crops.x.flatten(0, 1))[-1].square().mean())


class DividesByTheSpreadOfVolumes(Faulty):
    def step(self, crops: Crops) -> Step:
        step = super().step(crops)
        return Step(step.loss / crops.x[:, 0, 0, 0, 0, 0].std(correction=0), step.logs)


MUTANTS = {
    DividesByTheSpreadOfVolumes: "one_volume",
    LikesConstantFeatures: "a_constant_encoder_is_no_minimum",
    NotFinite: "loss_and_logs",
    AttachedLogs: "loss_and_logs",
    ForgetsTheCoarsestLevel: "gradients",
    Climbs: "learning",
    DrawsFromTheGlobalGenerator: "a_seed_repeats_the_step",
    WritesIntoItsInput: "input_and_global_random_state_are_unchanged",
    ForgetsItsCounter: "resuming",
    HandsOnAWrapper: "transfer",
    ShowsGradients: "previews",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_planted_fault_is_caught(mutant):
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[MUTANTS[mutant]](mutant)


@pytest.mark.parametrize("check", CHECKS)
def test_the_base_of_the_planted_faults_fulfils_the_contract(check):
    CHECKS[check](Faulty)
