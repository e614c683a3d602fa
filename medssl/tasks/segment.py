"""Segmentation task: predicts the class of every voxel."""

from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from medssl.data.classes import Classes
from medssl.data.crops import Crops
from medssl.errors import BadInput
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.sliding_window import sliding_window_inference
from medssl.metrics.overlap import dice
from medssl.nn.decoder import UNetDecoder, build_deep_heads
from medssl.nn.encoder import Encoder
from medssl.nn.losses import Loss, deep_supervision, dice_ce, regions_ce
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task


class Config(Settings):
    """Settings of the segmentation task."""

    name: Literal["segment"] = Field("segment", description="name of the task")
    deep_supervision_levels: PositiveInt = Field(3, description="number of decoder levels with a loss, from the finest")
    decoder_convs: PositiveInt = Field(2, description="convolutions of each level of the decoder")
    regions: tuple[tuple[PositiveInt, ...], ...] = Field(
        (),
        description="regions (unions of classes) to learn instead of classes, for example whole tumour, core and"
        " enhancing tumour: [[1,2,3],[2,3],[3]]",
    )
    class_balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="class weights in the cross-entropy: 0 weights voxels equally, 1 weights classes equally",
    )
    preactivation_head: bool = Field(
        True, description="the heads take features before the last activation, which would lose their negative half"
    )


class SegmentTask(Task):
    """A U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) on the encoder, with deep supervision.

    With regions, each region has a sigmoid, as in nnU-Net. A class is the set of regions that contain it. For
    independent regions the logit of a class is then the sum of the logits of its regions, and class probabilities are
    the softmax of these sums.
    """

    config: Config
    members: Tensor

    def __init__(self, config: Config, encoder: Encoder, num_classes: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, num_classes, patch_size)
        self.decoder = UNetDecoder(
            encoder.channels, encoder.strides, encoder.kernels, config.decoder_convs, linear=config.preactivation_head
        )
        out = len(config.regions) or num_classes
        self.heads = build_deep_heads(encoder.channels, encoder.strides, out, config.deep_supervision_levels)
        self.register_buffer("members", _assign_classes_to_regions(config.regions, num_classes), persistent=False)

    def step(self, crops: Crops) -> Step:
        """Returns the deep-supervision loss of a batch; views of one volume count as separate crops."""
        return self.compare_with_label(self.compute_logits(crops), crops)

    def compute_logits(self, crops: Crops) -> list[Tensor]:
        """Returns the logits of each supervised level, from the finest."""
        maps = self.decoder(self.encoder(crops.x.flatten(0, 1)))
        return [head(m) for head, m in zip(self.heads, maps, strict=False)]

    def compare_with_label(self, logits: list[Tensor], crops: Crops) -> Step:
        """Returns the deep-supervision loss of logits against the label of the crops."""
        loss, finest = deep_supervision(logits, crops.require_label().flatten(0, 1), self._build_loss(crops))
        return Step(loss, {"finest": finest})

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the class probabilities of the finest head."""
        logits = self.heads[0](self.decoder(self.encoder(x))[0]).float()
        if self.config.regions:
            logits = torch.einsum("brijk,nr->bnijk", logits, self.members.float())
        return logits.softmax(1)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Returns the Dice of every annotated class in one volume, and their mean."""
        return score_volume(self, crops)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns encoder, decoder and heads."""
        return {"encoder": self.encoder, "decoder": self.decoder, "heads": self.heads}

    def _build_loss(self, crops: Crops) -> Loss:
        """Returns the loss of one level, for the classes that are annotated in the crops."""
        annotated = crops.annotated_per_view()
        if self.config.regions:
            return partial(
                regions_ce, members=self.members, annotated=annotated, class_balance=self.config.class_balance
            )
        return partial(dice_ce, annotated=annotated, class_balance=self.config.class_balance)


def score_volume(task: Task, crops: Crops) -> dict[str, Tensor]:
    """Returns the Dice of every annotated class in one volume, as `dice_N`, and their mean, as `dice`.

    For a class without voxels in the label, the Dice is 1 if none is predicted and 0 otherwise.
    """
    network = TorchNetwork(task.probability, str(crops.x.device))
    predicted = sliding_window_inference(crops.x[0, 0].cpu().numpy(), network, task.patch_size).argmax(0)
    label = crops.require_label()[0, 0].cpu().numpy()
    annotated = [n for n in range(1, task.num_classes) if crops.annotated is None or crops.annotated[0, n]]
    is_known = label >= 0
    scores = {f"dice_{n}": dice((predicted == n) & is_known, label == n) for n in annotated}
    mean = sum(scores.values()) / max(1, len(scores))
    return {name: torch.tensor(value) for name, value in ({"dice": mean} | scores).items()}


def check_regions(task: Settings, classes: Classes) -> None:
    """Raises BadInput if a declared class is in none of the regions, because it would be learnt as background.

    Args:
        task: The settings of a task; only a segmentation can have regions.
        classes: The classes of the store.
    """
    regions = task.regions if isinstance(task, Config) else ()
    outside = [name for n, name in classes.names.items() if regions and not any(n in region for region in regions)]
    if outside:
        raise BadInput(
            f"task.regions: {', '.join(outside)} is in none of the regions; add it to a region, or add a region for it"
        )


def _assign_classes_to_regions(regions: tuple[tuple[int, ...], ...], num_classes: int) -> Bool[Tensor, "n r"]:
    """Returns which class is in which region; background is in none.

    A label value in no region counts as background. This allows gaps, such as the missing value 3 in BraTS.

    Raises:
        BadInput: A region contains an unknown class, or two classes are in the same regions.
    """
    is_inside = [[n in region for region in regions] for n in range(num_classes)]
    members = torch.tensor(is_inside, dtype=torch.bool).view(num_classes, len(regions))
    codes = [tuple(row) for row in members.tolist()]
    ambiguous = [n for n in range(num_classes) if any(codes[n]) and codes.index(codes[n]) != n]
    unknown = sorted({n for region in regions for n in region if n >= num_classes})
    if regions and (ambiguous or unknown):
        fault = f"class {unknown[0]} does not exist" if unknown else ""
        fault = fault or f"class {ambiguous[0]} is in the same regions as class {codes.index(codes[ambiguous[0]])}"
        raise BadInput(
            f"task.regions={[list(r) for r in regions]}: {fault}; give regions that distinguish the classes"
            f" 1 to {num_classes - 1}"
        )
    return members
