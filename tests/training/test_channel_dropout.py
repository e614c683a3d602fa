"""One encoder serves any subset of its co-registered sequences, from the files to the prediction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from medssl import config
from medssl.data.crops import Crops
from medssl.data.ingest.pipeline import Options, ingest
from medssl.data.phantoms.datasets import demo_folder, head
from medssl.data.transforms.intensity import vary
from medssl.errors import BadInput
from medssl.models.trained_model import Network, predictor
from medssl.nn.encoder import ResEncoder
from medssl.nn.interop import weight_transfer as transfer
from medssl.objectives import inpaint, mae, spark
from medssl.tasks.segment import Config, Segment
from medssl.training.channel_dropout import without_some
from medssl.training.config import Plan
from medssl.training.finetune import Finetune, finetune
from medssl.training.pretrain import Pretrain, pretrain
from medssl.training.trainer import fit
from tests.helpers.toy_training import batch, run


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sequences(channels: int, b: int = 2, side: int = 16) -> Crops:
    x = 0.1 + 0.8 * torch.rand(b, 1, channels, side, side, side, generator=source(1))
    one = batch(0)
    return replace(one, x=x, size=torch.full((b, 3), side))


@examples(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.floats(0, 0.99), st.integers(0, 99))
def test_what_is_left_is_never_nothing_and_as_it_was(channels, chance, seed):
    crops = sequences(channels, side=2)
    left = without_some(crops, chance, source(seed))
    blank = (left.x == 0).all((3, 4, 5))
    assert not blank.all(2).any()
    assert torch.equal(left.x, torch.where(blank[..., None, None, None], 0, crops.x))
    assert torch.equal(left.target(), crops.x.flatten(0, 1))
    assert torch.equal(left.x, without_some(crops, chance, source(seed)).x)


def test_channels_are_missing_about_as_often_as_asked():
    crops = sequences(2000, side=1)
    assert (without_some(crops, 0.3, source()).x == 0).float().mean() == pytest.approx(0.3, abs=0.03)


def test_a_training_leaves_out_channels_and_the_same_ones_when_it_is_repeated(tmp_path):
    seen: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    for turn, blanks in seen.items():
        torch.manual_seed(0)
        learner = mae.Mae(mae.Config(), ResEncoder((4, 8), (1, 2), in_channels=2))
        step = learner.step

        def watched(crops: Crops, blanks=blanks, step=step):
            blanks.append((crops.x == 0).all((3, 4, 5)))
            return step(crops)

        learner.step = watched
        plan = Plan(epochs=2, steps=2, channel_dropout=0.5)
        fit(learner, plan, run(tmp_path / str(turn)), DataLoader([sequences(2), sequences(2)], batch_size=None))
    last = torch.stack(seen[0][-4:])
    assert last.any() and not last.all() and not torch.equal(*last[[0, 2]])
    assert torch.equal(last, torch.stack(seen[1][-4:]))


def test_a_blank_channel_stays_blank_in_every_look():
    x = sequences(2).x[:, 0] * torch.tensor([1.0, 0.0])[:, None, None, None]
    looks = vary(x, source(), 1.0)
    assert not looks[:, 1].any() and looks[:, 0].any()


@pytest.mark.parametrize("module", [spark, mae, inpaint])
def test_a_reconstruction_is_held_against_the_missing_channel_too(module):
    torch.manual_seed(0)
    learner = config.class_for_config(module.Config())(
        module.Config(), ResEncoder((4, 8, 8), (1, 2, 2), in_channels=2)
    ).eval()
    crops = sequences(2)
    blank = crops.x.clone()
    blank[:, :, 1] = 0
    other = crops.x.clone()
    other[:, :, 1] = crops.x[:, :, 1].flip(-1)
    losses = [learner.step(replace(crops, x=blank, whole=whole)).loss.item() for whole in (crops.x, other)]
    assert losses[0] != losses[1]


def test_a_network_of_fewer_channels_is_the_whole_one_on_blank_channels():
    torch.manual_seed(0)
    whole = Segment(Config(), ResEncoder((4, 8), (1, 2), in_channels=3), 2, (16, 16, 16)).eval()
    part = Segment(Config(), ResEncoder((4, 8), (1, 2), in_channels=2), 2, (16, 16, 16)).eval()
    tensors = {f"{n}.{k}": v for n, m in whole.transferable().items() for k, v in m.state_dict().items()}
    ledger = transfer.fill(tensors, part.transferable(), "here", (2, 0))
    assert ledger.count("skipped") == 0 and "input channels 2, 0 of 3" in str(ledger)
    x = sequences(3).x[:, 0]
    x[:, 1] = 0
    with torch.no_grad():
        assert torch.allclose(whole.probability(x), part.probability(x[:, [2, 0]]), atol=1e-6)


SMALL = {"crop": [16, 16, 16], "encoder": {"channels": [4, 8, 8], "strides": [1, 2, 2]}}


@pytest.mark.slow
def test_two_sequences_run_from_files_to_predictions_of_either_alone(tmp_path):
    demo_folder(tmp_path / "scans", 0, 4, 0, shape=(24, 24, 24), spacing_mm=8.0, kind="head")
    options = Options(shares={"train": 0.75, "val": 0.25}, spacing_mm="native")
    manifest = ingest(tmp_path / "scans" / "curated", tmp_path / "store", options, lambda jobs, _: jobs).manifest
    assert {case.channels for case in manifest.cases} == {2}
    plan = {"epochs": 1, "steps": 2, "channel_dropout": 0.4}
    given_ = {"manifest": str(tmp_path / "store" / "manifest.csv"), "plan": plan, **SMALL}
    before = pretrain(config.check(given_ | {"run": str(tmp_path / "a"), "objective": "spark"}, Pretrain, "test"))
    after = given_ | {"run": str(tmp_path / "b"), "pretrained": str(before.path), "allow_absent": True}
    tuned = finetune(config.check(after, Finetune, "test"))
    image = head(9, (24, 24, 24), (8.0,) * 3).image
    for channels in ((), (0,), (1,)):
        seen = image if not channels else replace(image, voxels=image.voxels[list(channels)])
        said = predictor(tuned, channels=channels)(seen, "case")
        assert said.labels.shape == image.shape and np.isfinite(said.probability.voxels).all()
    with pytest.raises(BadInput, match=r"channels=\[2\]: the network knows 0 to 1"):
        predictor(tuned, channels=(2,))
    with pytest.raises(BadInput, match="2 channels, the network wants 1"):
        predictor(tuned, channels=(1,))(image, "case")


def test_a_subset_keeps_what_the_recipe_says_of_its_channels():
    recipe = {"landmarks": [[0.1] * 9, [0.2] * 9, [0.3] * 9]}
    whole = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "in_channels": 3, "recipe": recipe}
    network = config.check(whole | {"spacing_mm": None, "crop": [16, 16, 16]}, Network, "test")
    part = network.having((2, 0))
    assert part.in_channels == 2 and part.recipe.landmarks == ((0.3,) * 9, (0.1,) * 9)
    assert network.having(()) == network
