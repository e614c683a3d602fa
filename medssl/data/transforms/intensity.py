"""Changes intensities in [0, 1] without moving the anatomy."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def perturb_intensity(
    x: Float[Tensor, "b c i j k"], generators: Sequence[torch.Generator], strength: float
) -> Float[Tensor, "b c i j k"]:
    """Changes each volume by a random nonlinear curve, contrast, brightness and noise.

    An empty channel, which stands for a missing sequence, stays empty.

    Args:
        x: Intensities in [0, 1]; the result stays within them.
        generators: Source of the randomness of each volume.
        strength: 0 changes nothing, 1 changes most.
    """
    changed = [_perturb_volume(volume, generator, strength) for volume, generator in zip(x, generators, strict=True)]
    return torch.stack(changed).clamp(0, 1) * (x.amax((2, 3, 4), keepdim=True) > 0)


def warp_intensity(x: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Maps intensities through a random monotone curve from (0, 0) to (1, 1).

    The curve is the Bezier spline of Zhou et al., "Models Genesis" (2021), https://arxiv.org/abs/2004.07882.

    Args:
        x: Intensities in [0, 1].
        generator: Source of all randomness.
        strength: 0 gives the identity, 1 any monotone curve.
    """
    knots = torch.linspace(0, 1, 4) * (1 - strength) + strength * torch.rand(2, 4, generator=generator).sort(1).values
    knots[:, 0], knots[:, -1] = 0, 1
    t = torch.linspace(0, 1, 1024)[:, None]
    weights = torch.cat([(1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3], 1)
    xs, ys = (weights @ knots.T).T.contiguous().to(x)
    right = torch.searchsorted(xs, x.contiguous()).clamp(1, 1023)
    fraction = (x - xs[right - 1]) / (xs[right] - xs[right - 1]).clamp(min=1e-9)
    return torch.lerp(ys[right - 1], ys[right], fraction.clamp(0, 1))


def draw_uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws numbers in [0, 1) with the type of `like`, on its device: drawing a volume on the CPU is slow."""
    seed = int(torch.randint(2**62, (), generator=generator))
    on_device = torch.Generator(like.device).manual_seed(seed)
    return torch.rand(shape, generator=on_device, device=like.device, dtype=like.dtype)


def _perturb_volume(x: Float[Tensor, "c i j k"], generator: torch.Generator, strength: float) -> Tensor:
    """Changes one volume; values may leave [0, 1]."""
    warped = warp_intensity(x, generator, strength)
    contrast, brightness, noise_level = (torch.rand(3, generator=generator) * 2 - 1).tolist()
    noise = draw_uniform(x.shape, x, generator) - 0.5
    changed = warped * (1 + 0.3 * strength * contrast) + 0.15 * strength * brightness
    return changed + 0.2 * strength * abs(noise_level) * noise
