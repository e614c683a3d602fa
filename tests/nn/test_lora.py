"""Tests that adapters have no effect at first, are trained alone, and merge into a network with the same output."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medssl.nn import lora
from medssl.nn.encoder import ResEncoder


def encoder(channels: int = 1) -> ResEncoder:
    torch.manual_seed(0)
    return ResEncoder((4, 8), (1, 2), in_channels=channels)


def randomize_trainable_weights(network: nn.Module) -> nn.Module:
    """Sets trainable weights to random values, as if after training."""
    for weight in network.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.3)
    return network


X = torch.rand(1, 1, 8, 8, 8)


def test_a_new_adapter_has_no_effect():
    plain, adapted = encoder(), encoder()
    lora.add_adapters(adapted, 2)
    for a, b in zip(plain(X), adapted(X), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=8, deadline=None)
@given(rank=st.integers(1, 64))
def test_a_merged_network_has_the_same_output_and_the_plain_keys(rank):
    adapted, plain = encoder(), encoder()
    lora.add_adapters(adapted, rank)
    randomize_trainable_weights(adapted)
    before = adapted(X)
    merged = copy.deepcopy(adapted)
    lora.merge_adapters(merged)
    plain.load_state_dict(merged.state_dict())
    for a, b, c in zip(before, merged(X), plain(X), strict=True):
        assert torch.allclose(a, b, atol=1e-5) and torch.equal(b, c)
    assert not torch.allclose(before[0], encoder()(X)[0], atol=1e-2)


def test_adapters_and_norms_are_trained_and_kernels_are_frozen():
    adapted = encoder()
    kernels = {name: weight.clone() for name, weight in adapted.state_dict().items() if weight.ndim > 1}
    lora.add_adapters(adapted, 2)
    learning = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert learning and all(name.split(".")[-1] in ("up", "down") or ".norm." in name for name in learning)
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    for _ in range(2):
        sum(level.square().mean() for level in adapted(X)).backward()
        optimizer.step()
    for name, weight in adapted.named_parameters():
        assert (weight.grad is not None) == (name in learning), name
    for name, initial in kernels.items():
        current = adapted.get_parameter(name.removesuffix("weight") + "parametrizations.weight.original")
        assert torch.equal(current, initial)


@pytest.mark.parametrize("layer", [nn.Conv3d(3, 5, (1, 3, 3)), nn.ConvTranspose3d(4, 3, 2, 2), nn.Linear(6, 7)])
def test_other_layers_are_adapted_too(layer):
    network = nn.Sequential(copy.deepcopy(layer))
    lora.add_adapters(network, 100)
    randomize_trainable_weights(network)
    adapted_weight = network[0].weight.detach().clone()
    lora.merge_adapters(network)
    assert torch.allclose(network[0].weight, adapted_weight) and type(network[0]) is type(layer)


def test_merging_a_plain_network_changes_nothing():
    plain = encoder()
    before = copy.deepcopy(plain.state_dict())
    lora.merge_adapters(plain)
    assert all(torch.equal(before[name], weight) for name, weight in plain.state_dict().items())
