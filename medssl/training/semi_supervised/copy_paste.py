"""Copy-paste between labelled and unlabelled crops, in both directions.

Bai et al., "Bidirectional copy-paste for semi-supervised medical image segmentation" (2023),
https://arxiv.org/abs/2305.00673. A labelled crop gets a box of an unlabelled crop, and the unlabelled crop gets the
box of the labelled one. The label of unlabelled voxels is the teacher's, of which each class keeps its largest
component; their loss has the weight 0.5.

Deviations: a pair of crops exchanges its box both ways, where the paper takes two pairs. There is no
first training on labelled crops alone: they are learnt in every step, and the weight of the mixed crops grows from 0.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from scipy import ndimage
from torch import Tensor

from medssl.data.classes import IGNORE_INDEX
from medssl.data.crops import Crops

BOX_SIDE = 2 / 3  # of the crop, as published


def draw_boxes(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Bool[Tensor, "b 1 i j k"]:
    """Returns a mask of one randomly placed box in each crop.

    Args:
        shape: Shape of the crops in voxels.
        generators: One for each crop.
    """
    boxes = torch.zeros(len(generators), 1, *shape, dtype=torch.bool)
    sides = [max(1, round(BOX_SIDE * side)) for side in shape]
    for box, generator in zip(boxes, generators, strict=True):
        first = [
            int(torch.randint(n - side + 1, (), generator=generator)) for n, side in zip(shape, sides, strict=True)
        ]
        i, j, k = (slice(start, start + side) for start, side in zip(first, sides, strict=True))
        box[:, i, j, k] = True
    return boxes


def mix_crops(labelled: Crops, pseudo_labelled: Crops, is_pseudo: Bool[Tensor, "b v i j k"]) -> tuple[Crops, Crops]:
    """Returns mixed crops twice: with the annotated label alone, and with the teacher's label alone.

    Args:
        labelled: Crops with annotated labels.
        pseudo_labelled: As many crops with the teacher's labels.
        is_pseudo: Which voxels are those of `pseudo_labelled`.
    """
    x = torch.where(is_pseudo[:, :, None], pseudo_labelled.x, labelled.x)
    true_label = labelled.require_label().masked_fill(is_pseudo, IGNORE_INDEX)
    pseudo_label = pseudo_labelled.require_label().masked_fill(~is_pseudo, IGNORE_INDEX)
    return replace(labelled, x=x, label=true_label), replace(pseudo_labelled, x=x, label=pseudo_label)


def keep_largest_components(label: Int[Tensor, "n i j k"]) -> Int[Tensor, "n i j k"]:
    """Returns labels in which each class keeps its largest connected component; the others become background."""
    voxels = label.cpu().numpy()
    largest = np.zeros_like(voxels)
    for volume, result in zip(voxels, largest, strict=True):
        for value in np.unique(volume[volume > 0]):
            components, count = ndimage.label(volume == value)
            sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
            result[components == 1 + int(sizes.argmax())] = value
    return torch.from_numpy(largest).to(label.device)
