"""The features of a projection head are those of the training, before the head and after each of its layers."""

import pytest
import torch

from medssl.nn.encoder import ResEncoder
from medssl.nn.interop import weight_transfer
from medssl.training.probes.head_features import HeadFeatures, split_layers
from tests.helpers.objectives import PATHS, build_objective

DEPTHS = {
    "vicreg": 2,
    "graph_match": 2,
    "look": 2,
    "report_align": 2,
    "global_local": 2,
    "dino": 2,
    "bag_of_words": 2,
    "select_patch": 1,
}


def build(name, seed=0, **settings):
    torch.manual_seed(seed)
    return build_objective(name, ResEncoder((6, 8, 12), (1, 2, 2)), **settings).eval()


def make_crops(seed=0):
    return torch.rand(3, 1, 16, 16, 24, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", sorted(PATHS.keys() - {"sum"}))
def test_an_objective_has_a_head_with_known_layers_or_none(name):
    head = build(name).projection_head()
    assert (len(split_layers(head.layers)) if head else 0) == DEPTHS.get(name, 0)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(DEPTHS))
def test_each_depth_applies_one_more_linear_layer(name):
    objective, x = build(name), make_crops()
    head = objective.projection_head()
    maps = [HeadFeatures(objective, head, depth)(x)[0] for depth in range(DEPTHS[name] + 1)]
    torch.testing.assert_close(maps[0], head.read(x))
    cells = maps[0].flatten(2).mT
    torch.testing.assert_close(head.layers(cells), maps[-1].flatten(2).mT)
    assert all(m.shape[2:] == maps[0].shape[2:] for m in maps)


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(DEPTHS))
def test_features_do_not_depend_on_the_order_of_the_batch(name):
    objective, x = build(name), make_crops()
    features = HeadFeatures(objective, objective.projection_head(), 1)
    torch.testing.assert_close(features(x.flip(0))[0], features(x)[0].flip(0))


@torch.no_grad()
def test_the_last_layer_gives_the_embeddings_that_the_loss_compares():
    objective, x = build("vicreg", level=0), make_crops()
    maps = HeadFeatures(objective, objective.projection_head(), 2)(x)[0]
    expected = objective.expand(objective.compute_maps(x).movedim(1, -1))
    torch.testing.assert_close(maps.movedim(1, -1), expected)


@torch.no_grad()
def test_a_head_for_crops_reads_a_cell_as_a_crop_of_one_cell():
    objective, x = build("global_local"), make_crops()
    maps = HeadFeatures(objective, objective.projection_head(), 2)(x)[0]
    coarsest = objective.encoder(x)[-1]
    cell = coarsest[:, :, 1:2, 2:3, 3:4]
    torch.testing.assert_close(maps[:, :, 1, 2, 3], objective.head(cell))


def test_a_sum_has_the_head_of_its_first_term_with_one():
    weights = {"spark": 1.0, "vicreg": 1.0}
    objective = build("sum", weights=weights)
    assert objective.projection_head().layers is objective.terms["vicreg"].expand
    assert build("sum", weights={"spark": 1.0}).projection_head() is None
    assert build("global_local", stage="local").projection_head() is None


def test_the_file_of_a_head_holds_its_layers_only(tmp_path):
    layers = build("dino").projection_head().layers
    weight_transfer.save_parts({"projection": layers}, tmp_path / "projection.safetensors")
    other = build("dino", seed=1).projection_head().layers
    report = weight_transfer.load_parts(tmp_path / "projection.safetensors", {"projection": other})
    assert report.count("loaded") == len(layers.state_dict()) == len(report.entries)
    assert all(torch.equal(value, layers.state_dict()[key]) for key, value in other.state_dict().items())
