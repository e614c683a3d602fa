"""Makes small labelled crops with bright balls of known position and size."""

import numpy as np
import torch

from medssl.data.crops import Crops


def draw_balls(shape, balls, value=1):
    """Returns a label with balls, given as (centre, radius) in voxels."""
    index = np.indices(shape).transpose(1, 2, 3, 0)
    inside = [np.linalg.norm(index - centre, axis=-1) <= radius for centre, radius in balls]
    return np.any(inside, axis=0).astype(np.int64) * value if balls else np.zeros(shape, np.int64)


def make_crops(*labels, seed=0, noise=0.05):
    """Makes one crop for each label: lesions of 0.7 in a noisy 0.3, and a bright slab that is no lesion."""
    label = torch.from_numpy(np.stack(labels))
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.4 * (label > 0) + noise * torch.randn(label.shape, generator=generator)
    x[:, :, :, :2] = 0.7
    count, shape = len(label), torch.tensor(label.shape[1:])
    return Crops(
        x=x[:, None, None].clamp(0, 1).float(),
        corner=torch.zeros(count, 1, 3, dtype=torch.long),
        size=shape.repeat(count, 1),
        affine=torch.eye(4).repeat(count, 1, 1, 1),
        volume=torch.arange(count),
        label=label[:, None],
    )
