"""Small networks with shaken norms, and masked volumes to feed them."""

import torch

from medssl.nn.encoder import ResEncoder

NORMS = ("instance", "group", "batch", "layer")
STRIDES = {"isotropic": (1, 2, 2), "anisotropic": ((1, 2, 2), (1, 2, 2), (2, 2, 1)), "steep": (2, 1, (4, 2, 2))}


def shaken(norm="instance", strides="isotropic", in_channels=1, blocks=(1, 2, 1), seed=0, dense=False):
    """An encoder whose norms scale and shift: fresh ones add nothing and would hide a missing mask."""
    torch.manual_seed(seed)
    net = ResEncoder((8, 16, 24), STRIDES[strides], blocks, in_channels, norm)
    for name, p in net.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(p, 0.3, 0.9)
    net.dense = dense
    return net


def masked_volumes(net, grid=(3, 4, 3), batch=2, seed=0, share=0.4):
    """Volumes in [0, 1] and a mask with another number of visible cells in each."""
    generator = torch.Generator().manual_seed(seed)
    size = [n * c for n, c in zip(grid, net.cell, strict=True)]
    x = torch.rand(batch, net.in_channels, *size, generator=generator)
    keep = torch.rand(batch, 1, *grid, generator=generator) < share
    for b in range(batch):
        keep[b, 0, 0, b % grid[1], 0] = True
        keep[b, 0, -1, -1, -1] = False
    return x, keep
