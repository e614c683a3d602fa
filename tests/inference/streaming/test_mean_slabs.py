"""The mean of several predictions equals that of their whole volumes, in memory and in a file."""

from itertools import product

import numpy as np
import pytest
import torch

from medssl.inference.ensemble import Ensemble
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor, class_entropy
from medssl.inference.sliding_window import sliding_window_inference
from medssl.inference.streaming import mean_slabs
from medssl.inference.test_time_augmentation import mirror_views

NAMES = {1: "a", 2: "b"}


def make_network(seed):
    scale = torch.rand(3, generator=torch.Generator().manual_seed(seed)).view(1, -1, 1, 1, 1) * 9
    return TorchNetwork(lambda x: (scale * x + torch.linspace(0, 1, x.shape[2])[:, None, None]).softmax(1))


@pytest.mark.parametrize("max_bytes", [0, 2**26], ids=["file", "memory"])
def test_mean_and_disagreement_equal_those_of_whole_volumes(monkeypatch, max_bytes):
    monkeypatch.setattr(mean_slabs, "MAX_BYTES_IN_MEMORY", max_bytes or 1)
    x = np.random.default_rng(0).random((1, 19, 11, 13)).astype(np.float32)
    members = [Predictor(make_network(n), lambda v: v, crop, NAMES) for n, crop in enumerate([(8, 6, 7), (5, 8, 8)])]
    views = mirror_views((0, 2), NAMES)
    predictions = []
    for member, view in product(members, views):
        mirrored = np.ascontiguousarray(view.apply(x))
        p = sliding_window_inference(mirrored, member.network, member.crop)
        predictions.append(np.flip(p, [axis + 1 for axis in view.axes]))
    expected = np.stack(predictions).mean(0)
    entropy = np.stack([class_entropy(p) for p in predictions]).mean(0)
    mean, disagreement = Ensemble(tuple(members), views).predict_mean_and_disagreement(x)
    assert np.allclose(mean, expected, atol=1e-6)
    assert np.allclose(disagreement, ((class_entropy(expected) - entropy) / np.log(3)).clip(0, 1), atol=1e-6)
