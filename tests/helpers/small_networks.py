"""Builds small encoders with random norms, and masked volumes for them."""

import torch

from medssl.nn.encoders import convnext, dynunet, plainconv, residual, segresnet

NORMS = ("instance", "group", "batch", "layer")
STRIDES = {"isotropic": (1, 2, 2), "anisotropic": ((1, 2, 2), (1, 2, 2), (2, 2, 1)), "steep": (2, 1, (4, 2, 2))}
KINDS = ("residual", "plainconv", "convnext", "segresnet", "dynunet")
UNSUPPORTED_BY_MONAI = {"layer", "steep"}


def small_config(kind, norm, strides, blocks=(1, 2, 1)):
    """Returns the config of a small encoder of a kind."""
    settings = {"channels": (8, 16, 24), "strides": STRIDES[strides], "norm": norm}
    if kind == "segresnet":
        return segresnet.Config(init_filters=8, blocks_down=blocks, norm=norm)
    if kind == "convnext":
        return convnext.Config(**settings, blocks=blocks)
    if kind == "plainconv":
        return plainconv.Config(**settings, convs=blocks)
    if kind in ("dynunet", "basic"):
        return dynunet.Config(**settings, residual=kind == "dynunet")
    return residual.Config(**settings, blocks=blocks, bias=kind == "biased")


def is_possible(kind, norm, strides):
    """Returns whether a combination exists: MONAI has no layer norm and no stride above 2."""
    if kind == "segresnet":
        return norm != "layer" and strides == "isotropic"
    return kind != "dynunet" or not UNSUPPORTED_BY_MONAI & {norm, strides}


CASES = [(k, n, s) for k in KINDS for n in NORMS for s in STRIDES if is_possible(k, n, s)]
CASES += [("biased", "group", "isotropic"), ("basic", "batch", "anisotropic")]


def make_encoder(
    norm="instance", strides="isotropic", in_channels=1, blocks=(1, 2, 1), seed=0, dense=False, kind="residual"
):
    """Builds an encoder with random norm parameters; the shift of a new norm is 0 and would hide a missing mask."""
    torch.manual_seed(seed)
    net = small_config(kind, norm, strides, blocks).build(in_channels)
    for name, p in net.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(p, 0.3, 0.9)
    net.dense = dense
    return net


def masked_volumes(net, grid=(3, 4, 3), batch=2, seed=0, fraction=0.4):
    """Returns volumes in [0, 1], and masks with a different number of visible patches in each."""
    generator = torch.Generator().manual_seed(seed)
    size = [n * c for n, c in zip(grid, net.patch, strict=True)]
    x = torch.rand(batch, net.in_channels, *size, generator=generator)
    visible = torch.rand(batch, 1, *grid, generator=generator) < fraction
    for b in range(batch):
        visible[b, 0, 0, b % grid[1], 0] = True
        visible[b, 0, -1, -1, -1] = False
    return x, visible
