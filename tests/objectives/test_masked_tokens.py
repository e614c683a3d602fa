"""Hidden places are told by the words of a fixed random vocabulary, and hidden voxels are not read."""

import math

import pytest
import torch
from torch.nn import functional as F

from medssl import config
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.nn.encoder import ResEncoder
from medssl.objectives.reconstruction.masked_tokens import CellVocabulary, Config, MaskedTokens


def make_objective(in_channels=1, strides=(1, 2, 2), **settings):
    torch.manual_seed(0)
    encoder = ResEncoder((4, 6, 8)[: len(strides)], strides, in_channels=in_channels)
    return MaskedTokens(Config(**settings), encoder)


def make_crops(channels=1, side=16):
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, channels, 5, 5, 5, generator=g)
    x = F.interpolate(coarse, (side,) * 3, mode="trilinear")[:, None]
    eye = torch.eye(4).expand(2, 1, 4, 4)
    return Crops(x, torch.zeros(2, 1, 3, dtype=torch.long), torch.full((2, 3), side), eye, torch.arange(2))


def make_vocabulary(num_words=32, seed=0, side=16, body=True):
    vocabulary = CellVocabulary(2, num_words, seed)
    x = make_crops(2, side).x[:, 0]
    vocabulary.fill(x, torch.full((2, 1, side // 4, side // 4, side // 4), body))
    return vocabulary, x


def standardize(x):
    return (x - x.mean((2, 3, 4), keepdim=True)) / x.std((2, 3, 4), keepdim=True)


def test_a_word_is_the_cube_of_the_vocabulary_with_the_least_distance():
    vocabulary, x = make_vocabulary()
    words = vocabulary(x)
    assert words.shape == (2, 2, 8, 8, 8) and len(words.unique()) > 16
    for place in ((0, 0, 0), (3, 1, 2), (7, 7, 7)):
        i, j, k = (slice(2 * n, 2 * n + 2) for n in place)
        cube = standardize(x)[1, 1, i, j, k].flatten()
        assert words[(1, 1, *place)] == (vocabulary.words - cube).norm(dim=1).argmin()


def test_words_are_cubes_of_the_body_of_the_first_batch():
    x = make_crops(1, 16).x[:, 0]
    body = torch.zeros(2, 1, 4, 4, 4, dtype=torch.bool)
    body[:, :, 1] = True
    vocabulary = CellVocabulary(2, 32, 0)
    vocabulary.fill(x, body)
    cubes = vocabulary.split(x)[:, :, 2:4].reshape(-1, 8)  # those of the second slab of patches
    assert ((vocabulary.words[:, None] - cubes).abs().amax(2).amin(1) < 1e-5).all()
    assert len(vocabulary.words.unique(dim=0)) == 32
    before = vocabulary.words.clone()
    vocabulary.fill(1 - x, body)
    assert torch.equal(before, vocabulary.words), "later batches change no word"


def test_the_vocabulary_follows_from_the_seed_and_fewer_cubes_are_repeated():
    first, second, other = (make_vocabulary(seed=seed)[0].words for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    words = make_vocabulary(num_words=5000, side=8)[0].words
    assert words.isfinite().all() and len(words.unique(dim=0)) <= 2 * 2 * 64


def test_the_words_of_a_patch_are_those_of_its_voxels():
    objective, crops = make_objective(2), make_crops(2)
    objective.step(crops)
    words = objective.find_words(crops.x[:, 0])
    assert words.shape == (2, 64, 2 * 8)
    whole = objective.vocabulary(crops.x[:, 0])
    patch = 1 * 16 + 2 * 4 + 3
    assert torch.equal(words[1, patch].view(2, 2, 2, 2), whole[1, :, 2:4, 4:6, 6:8])


def test_the_loss_is_the_cross_entropy_over_hidden_patches_alone():
    objective, crops = make_objective(), make_crops()
    crops = objective.prepare(crops)
    encoded = objective.encode(crops)
    step = objective.step_encoded(crops, encoded)
    predicted = objective.predict(encoded.coarsest_tokens(), crops.mask.visible, crops.affine)
    logits = predicted.view(2, 64, 8, 64)
    words = objective.find_words(crops.x[:, 0])
    hidden = (crops.mask.body & ~crops.mask.visible).flatten(1)
    losses = [
        -logits[b, n, m].log_softmax(0)[words[b, n, m]]
        for b in range(2) for n in range(64) if hidden[b, n] for m in range(8)
    ]  # fmt: skip
    torch.testing.assert_close(step.loss, torch.stack(losses).mean())
    assert abs(step.loss - math.log(64)) < 1


def test_it_learns_the_words_of_one_batch():
    objective, crops = make_objective(num_words=16, seed=1), make_crops()
    optimizer = torch.optim.Adam(objective.parameters(), 1e-2)
    first = objective.step(crops)
    for _ in range(40):
        optimizer.zero_grad()
        step = objective.step(crops)
        step.loss.backward()
        optimizer.step()
    assert step.loss < 0.7 * first.loss and step.logs["accuracy"] > first.logs["accuracy"] + 0.2


def test_a_cell_that_does_not_divide_the_patch_is_refused():
    with pytest.raises(BadInput, match=r"objective.cell=3 does not divide the patch of \(4, 4, 4\) voxels"):
        make_objective(cell=3)
    for key, value in (("cell", 0), ("num_words", 1)):
        with pytest.raises(BadInput, match=key):
            config.check({"name": "masked_tokens", key: value}, Config, "test")
