"""Small networks with shaken norms, and masked volumes to feed them."""

import torch

from medssl.nn.encoders import convnext, dynunet, residual, segresnet

NORMS = ("instance", "group", "batch", "layer")
STRIDES = {"isotropic": (1, 2, 2), "anisotropic": ((1, 2, 2), (1, 2, 2), (2, 2, 1)), "steep": (2, 1, (4, 2, 2))}
KINDS = ("residual", "convnext", "segresnet", "dynunet")
NOT_OF_MONAI = {"layer", "steep"}


def describe(kind, norm, strides, blocks=(1, 2, 1)):
    """A small encoder of a kind."""
    wide = {"channels": (8, 16, 24), "strides": STRIDES[strides], "norm": norm}
    if kind == "segresnet":
        return segresnet.Config(init_filters=8, blocks_down=blocks, norm=norm)
    if kind == "convnext":
        return convnext.Config(**wide, blocks=blocks)
    if kind in ("dynunet", "basic"):
        return dynunet.Config(**wide, residual=kind == "dynunet")
    return residual.Config(**wide, blocks=blocks, bias=kind == "biased")


def possible(kind, norm, strides):
    """Whether there is such an encoder: MONAI has no norm over channels, and strides by 2 at most."""
    if kind == "segresnet":
        return norm != "layer" and strides == "isotropic"
    return kind != "dynunet" or not NOT_OF_MONAI & {norm, strides}


CASES = [(k, n, s) for k in KINDS for n in NORMS for s in STRIDES if possible(k, n, s)]
CASES += [("biased", "group", "isotropic"), ("basic", "batch", "anisotropic")]


def shaken(norm="instance", strides="isotropic", in_channels=1, blocks=(1, 2, 1), seed=0, dense=False, kind="residual"):
    """An encoder whose norms scale and shift: fresh ones add nothing and would hide a missing mask."""
    torch.manual_seed(seed)
    net = describe(kind, norm, strides, blocks).build(in_channels)
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
