"""One encoder works on any subset of its co-registered sequences, from the files to the prediction."""

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
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest
from medssl.data.phantoms.datasets import simulate_head_mr, write_demo_folder
from medssl.data.transforms.intensity import perturb_intensity
from medssl.errors import BadInput
from medssl.models.trained_model import TrainedModel, build_predictor
from medssl.nn.collectives import split_generator
from medssl.nn.encoder import ResEncoder
from medssl.nn.encoders import fusion, residual, wavelet
from medssl.nn.interop import weight_transfer
from medssl.objectives.reconstruction import inpaint, mae, spark
from medssl.tasks.segment import Config, SegmentTask
from medssl.training.config import TrainConfig
from medssl.training.data_loaders import DataLoaders
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.lightning_module import drop_channels
from medssl.training.pretrain import PretrainConfig, pretrain
from medssl.training.trainer import train
from tests.helpers.toy_training import make_batch, open_run


def make_generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sequences(channels: int, b: int = 2, side: int = 16) -> Crops:
    x = 0.1 + 0.8 * torch.rand(b, 1, channels, side, side, side, generator=make_generator(1))
    return replace(make_batch(0), x=x, size=torch.full((b, 3), side))


@examples(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.floats(0, 0.99), st.integers(0, 99))
def test_one_channel_always_remains_unchanged(channels, chance, seed):
    crops = sequences(channels, side=2)
    dropped = drop_channels(crops, chance, make_generator(seed))
    blank = (dropped.x == 0).all((3, 4, 5))
    assert not blank.all(2).any()
    assert torch.equal(dropped.x, torch.where(blank[..., None, None, None], 0, crops.x))
    assert torch.equal(dropped.reconstruction_target(), crops.x.flatten(0, 1))
    assert torch.equal(dropped.x, drop_channels(crops, chance, make_generator(seed)).x)


def test_channels_are_dropped_with_the_given_probability():
    crops = sequences(2000, side=1)
    assert (drop_channels(crops, 0.3, make_generator()).x == 0).float().mean() == pytest.approx(0.3, abs=0.03)


def test_a_repeated_training_drops_the_same_channels(tmp_path):
    recorded: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    for repetition, blanks in recorded.items():
        torch.manual_seed(0)
        learner = mae.Mae(mae.Config(), ResEncoder((4, 8), (1, 2), in_channels=2))
        step = learner.step

        def record(crops: Crops, blanks=blanks, step=step):
            blanks.append((crops.x == 0).all((3, 4, 5)))
            return step(crops)

        learner.step = record
        config_ = TrainConfig(epochs=2, steps_per_epoch=2, channel_dropout=0.5)
        loaders = DataLoaders(DataLoader([sequences(2), sequences(2)], batch_size=None))
        train(learner, loaders, open_run(tmp_path / str(repetition)), config_)
    last = torch.stack(recorded[0][-4:])
    assert last.any() and not last.all() and not torch.equal(*last[[0, 2]])
    assert torch.equal(last, torch.stack(recorded[1][-4:]))


def test_a_blank_channel_stays_blank_in_every_view():
    x = sequences(2).x[:, 0] * torch.tensor([1.0, 0.0])[:, None, None, None]
    views = perturb_intensity(x, split_generator(make_generator(), len(x)), 1.0)
    assert not views[:, 1].any() and views[:, 0].any()


@pytest.mark.parametrize("module", [spark, mae, inpaint])
def test_a_reconstruction_is_compared_with_the_missing_channel_too(module):
    torch.manual_seed(0)
    learner = config.class_for_config(module.Config())(
        module.Config(), ResEncoder((4, 8, 8), (1, 2, 2), in_channels=2)
    ).eval()
    crops = sequences(2)
    blank = crops.x.clone()
    blank[:, :, 1] = 0
    other = crops.x.clone()
    other[:, :, 1] = crops.x[:, :, 1].flip(-1)
    losses = [learner.step(replace(crops, x=blank, x_all_channels=target)).loss.item() for target in (crops.x, other)]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("module", [residual, wavelet, fusion])
def test_a_network_of_fewer_channels_is_the_whole_one_on_blank_channels(module):
    torch.manual_seed(0)
    encoder = module.Config(channels=(4, 8), strides=(2, 2))
    whole, part = (SegmentTask(Config(), encoder.build(n), 2, (16, 16, 16)).eval() for n in (3, 2))
    tensors = {f"{n}.{k}": v for n, m in whole.transferable().items() for k, v in m.state_dict().items()}
    report = weight_transfer.fill_parts(tensors, part.transferable(), "here", (2, 0))
    if module is fusion:
        assert {e.key.rpartition(".1.")[0] for e in report.entries if e.status == "skipped"} == {
            "encoder.stems",
            "encoder.gates",
        }
    else:
        assert report.count("skipped") == 0 and "input channels 2, 0 of 3" in str(report)
    x = sequences(3).x[:, 0]
    x[:, 1] = 0
    with torch.no_grad():
        assert torch.allclose(whole.probability(x), part.probability(x[:, [2, 0]]), atol=1e-6)


SMALL = {"patch_size": [16, 16, 16], "encoder": {"channels": [4, 8, 8], "strides": [1, 2, 2]}}


@pytest.mark.slow
def test_two_sequences_run_from_files_to_predictions_of_either_alone(tmp_path):
    write_demo_folder(tmp_path / "scans", 0, 4, 0, shape=(24, 24, 24), spacing_mm=8.0, kind="head")
    options = IngestConfig(split_fractions={"train": 0.75, "val": 0.25}, spacing_mm="native", num_workers=0)
    manifest = ingest(tmp_path / "scans" / "curated", tmp_path / "store", options, lambda jobs, _: jobs).manifest
    assert {case.channels for case in manifest.cases} == {2}
    train_options = {"epochs": 1, "steps_per_epoch": 2, "channel_dropout": 0.4}
    values = {"manifest": str(tmp_path / "store" / "manifest.csv"), "train": train_options, **SMALL}
    pretrained = pretrain(
        config.check(values | {"run": str(tmp_path / "a"), "objective": "spark"}, PretrainConfig, "test")
    )
    finetune_values = values | {
        "run": str(tmp_path / "b"),
        "pretrained": str(pretrained.path),
        "allow_missing_classes": True,
    }
    tuned = finetune(config.check(finetune_values, FinetuneConfig, "test"))
    image = simulate_head_mr(9, (24, 24, 24), (8.0,) * 3).image
    for channels in ((), (0,), (1,)):
        scan = image if not channels else replace(image, voxels=image.voxels[list(channels)])
        prediction = build_predictor(tuned, channels=channels)(scan, "case")
        assert prediction.labels.shape == image.shape and np.isfinite(prediction.probability.voxels).all()
    with pytest.raises(BadInput, match=r"channels=\[2\]: the network has channels 0 to 1; give each at most once"):
        build_predictor(tuned, channels=(2,))
    with pytest.raises(BadInput, match="2 channels, the network needs 1"):
        build_predictor(tuned, channels=(1,))(image, "case")


def test_a_subset_of_channels_keeps_their_normalization():
    normalization = {"landmarks": [[0.1] * 9, [0.2] * 9, [0.3] * 9]}
    whole = {"encoder": {"channels": [4, 8], "strides": [1, 2]}, "in_channels": 3, "normalization": normalization}
    model = config.check(whole | {"spacing_mm": None, "patch_size": [16, 16, 16]}, TrainedModel, "test")
    part = model.select_channels((2, 0))
    assert part.in_channels == 2 and part.normalization.landmarks == ((0.3,) * 9, (0.1,) * 9)
    assert model.select_channels(()) == model
