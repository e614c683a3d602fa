"""A bag of words counts patches wherever they lie, needs the other crop, and its vocabulary follows the teacher."""

import torch

from medssl.nn.encoder import ResEncoder
from medssl.objectives.distillation import bag_of_words
from medssl.objectives.distillation.bag_of_words import BagOfWords, Config, count_words
from tests.objectives.test_contract import crops


def objective(**settings):
    torch.manual_seed(0)
    return BagOfWords(Config(**settings), ResEncoder((6, 8, 12), (1, 2, 2), in_channels=2))


def test_frequencies_sum_to_1_and_ignore_the_order_of_patches():
    generator = torch.Generator().manual_seed(0)
    tokens, words = torch.randn(2, 20, 5, generator=generator), torch.randn(7, 5, generator=generator)
    target = count_words(tokens.requires_grad_(), words, 10.0)
    torch.testing.assert_close(target.sum(1), torch.ones(2))
    assert not target.requires_grad
    torch.testing.assert_close(count_words(tokens[:, torch.randperm(20, generator=generator)], words, 10.0), target)


def test_a_crop_has_the_words_that_its_patches_are():
    words = 9 * torch.eye(4)
    tokens = words[torch.tensor([[0, 0, 2, 2, 2]])] + 0.01
    assert count_words(tokens, words, 10.0)[0, [0, 2]].min() > 0.49


def test_other_voxels_within_a_patch_change_its_word():
    bag, x = objective(), crops(2).x.flatten(0, 1)
    shuffled = x.unflatten(2, (4, 4)).flip(3).flatten(2, 3)  # patches of 4 voxels, mirrored along the first axis
    words = bag.choose_words(1, bag_tokens(bag, x), torch.Generator().manual_seed(0))
    before, after = (count_words(bag_tokens(bag, part), words, 10.0) for part in (x, shuffled))
    assert (before - after).abs().max() > 0.01


def bag_tokens(bag, x):
    with torch.no_grad():
        tokens = bag.teacher(x)[-1].flatten(2).mT
    return torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])


def test_the_target_is_of_the_other_crop(monkeypatch):
    bag, batch, targets = objective(), crops(2), []
    words = [torch.randn(9, channels, generator=torch.Generator().manual_seed(0)) for channels in (8, 12)]
    monkeypatch.setattr(bag, "choose_words", lambda level, tokens, generator: words[level])
    compare = bag_of_words.compute_divergence
    record = lambda target, *rest: targets.append(target) or compare(target, *rest)  # noqa: E731
    monkeypatch.setattr(bag_of_words, "compute_divergence", record)
    bag.step(batch)
    x = batch.x.flatten(0, 1)
    others = count_words(bag_tokens(bag, x[[1, 0, 3, 2, 5, 4, 7, 6][: len(x)]]), words[1], 10.0)
    torch.testing.assert_close(targets[1], others)
    assert (others - count_words(bag_tokens(bag, x), words[1], 10.0)).abs().max() > 1e-3


def test_the_vocabulary_keeps_the_newest_words_of_a_training_only():
    bag, batch = objective(num_words=40, num_new_words=4), crops(2)
    bag.eval().step(batch)
    assert not len(bag.words[0].valid_rows()["word"])
    bag.train().step(batch)
    first = bag.words[1].valid_rows()["word"].clone()
    assert len(first) == 32
    bag.step(batch)
    assert len(bag.words[1].valid_rows()["word"]) == 40 and (bag.words[1].word[:24] != first[:24]).any()


def test_one_word_everywhere_has_no_spread():
    bag = objective()
    for weight in bag.teacher.parameters():
        torch.nn.init.zeros_(weight)
    step = bag.step(crops(2))
    count = 8 * 4
    torch.testing.assert_close(step.logs["words_1"], torch.tensor(float(count)))  # equal words share the count
    assert step.positive_pairs[1].std(0).max() == 0
