"""Intensity changes on [0, 1] that leave the anatomy where it is."""

import torch
from jaxtyping import Float
from torch import Tensor


def vary(x: Float[Tensor, "b c i j k"], generator: torch.Generator, strength: float) -> Float[Tensor, "b c i j k"]:
    """Another look at each volume: a bent scale, contrast, brightness and noise; strength 0 changes nothing.

    A blank channel stays blank: it stands for a sequence that is missing.
    """
    bent = torch.stack([bend(volume, generator, strength) for volume in x])
    contrast, bright, grain = (torch.rand(3, len(x), 1, 1, 1, 1, generator=generator) * 2 - 1).to(x)
    noise = uniform(x.shape, x, generator) - 0.5
    changed = bent * (1 + 0.3 * strength * contrast) + 0.15 * strength * bright + 0.2 * strength * grain.abs() * noise
    return changed.clamp(0, 1) * (x.amax((2, 3, 4), keepdim=True) > 0)


def bend(x: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Maps intensities through a random monotone curve from (0, 0) to (1, 1).

    The Bezier spline of Zhou et al., "Models Genesis" (2021), https://arxiv.org/abs/2004.07882.
    """
    knots = torch.linspace(0, 1, 4) * (1 - strength) + strength * torch.rand(2, 4, generator=generator).sort(1).values
    knots[:, 0], knots[:, -1] = 0, 1
    t = torch.linspace(0, 1, 1024)[:, None]
    weights = torch.cat([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], 1)
    along, up = (weights @ knots.T).T.contiguous().to(x)
    right = torch.searchsorted(along, x.contiguous()).clamp(1, 1023)
    share = (x - along[right - 1]) / (along[right] - along[right - 1]).clamp(min=1e-9)
    return torch.lerp(up[right - 1], up[right], share.clamp(0, 1))


def uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1), drawn where `like` is: a volume of them takes long on the CPU and to send."""
    seed = int(torch.randint(2**62, (), generator=generator))
    there = torch.Generator(like.device).manual_seed(seed)
    return torch.rand(shape, generator=there, device=like.device, dtype=like.dtype)
