"""Classification task: predicts which classes a volume holds, without drawing them."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops
from medssl.inference.detector import Detector
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.nn.attention.pool import AttentionPool
from medssl.nn.collectives import divide_sums
from medssl.nn.encoder import Encoder
from medssl.nn.norms import LayerNorm
from medssl.nn.self_supervision.tokens import to_tokens
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.volume import Volume


class Config(Settings):
    """Settings of the classification task."""

    name: Literal["classify"] = Field("classify", description="name of the task")
    dropout: float = Field(0.0, ge=0, lt=1, description="fraction of the pooled features that are dropped in training")
    min_score: float = Field(0.01, gt=0, lt=1, description="smallest probability of a class that is reported")


class ClassifyTask(Task):
    """Multi-label classification by attention over the patches of a window, one set of weights for each class.

    Ilse et al., "Attention-based deep multiple instance learning" (2018), https://arxiv.org/abs/1802.04712. A crop is
    labelled with the classes that occur in it; a label volume that is filled with one value labels a whole scan. A
    volume has the highest probability of its windows, and a patient that of the volumes. The probability lies at the
    patches that got the attention, so that it reaches predictions, calibration and evaluation as the score of a lesion.
    """

    config: Config
    selection_metric = "probability_of_truth"

    def __init__(self, config: Config, encoder: Encoder, num_classes: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__(config, encoder, num_classes, patch_size)
        self.head = ClassificationHead(encoder.channels[-1], num_classes - 1, config.dropout)

    def step(self, crops: Crops) -> Step:
        """Returns the binary cross-entropy of each class that is annotated."""
        target, is_known = find_classes(crops.require_label().flatten(0, 1), self.num_classes)
        annotated = crops.annotated_per_view()
        if annotated is not None:
            is_known = is_known & annotated[:, 1:]
        logits, _ = self.classify(crops.x.flatten(0, 1))
        error = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
        loss = divide_sums((error * is_known).sum(), is_known.sum(), 1)
        return Step(loss, {"error": (((logits > 0) != target) & is_known).float().mean()})

    def classify(self, x: Float[Tensor, "b c i j k"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n p q r"]]:
        """Returns the logit of each class but background, and the attention to each cell, 1 at its maximum."""
        coarsest = self.encoder(x)[-1]
        logits, weights = self.head(to_tokens(coarsest))
        attention = weights / weights.amax(-1, keepdim=True)
        return logits, attention.unflatten(-1, coarsest.shape[2:])

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the probability of each class where the attention to it is highest, and less elsewhere.

        The first class is background: none of the others.
        """
        logits, attention = self.classify(x)
        present = logits.sigmoid()[..., None, None, None] * attention
        present = F.interpolate(present, x.shape[2:], mode="nearest")  # so that the maximum is the probability itself
        return torch.cat([(1 - present).prod(1, keepdim=True), present], 1)

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Returns the mean probability of the truth over the annotated classes in one volume."""
        names = {value: str(value) for value in range(1, self.num_classes)}
        detector = self.predictor(lambda volume: volume, names, str(crops.x.device))
        candidates, _, _ = detector.find_candidates(crops.x[0, 0].cpu().numpy())
        target, is_known = find_classes(crops.require_label()[0], self.num_classes)
        truths = []
        for value in names:
            score = max((c.score for c in candidates if c.label == value), default=0.0)
            if is_known[0, value - 1] and (crops.annotated is None or crops.annotated[0, value]):
                truths.append(score if target[0, value - 1] else 1 - score)
        return {"probability_of_truth": torch.tensor(sum(truths) / len(truths) if truths else 0.0)}

    def predictor(self, prepare: Callable[[Volume], Volume], names: Mapping[int, str], device: str = "cpu") -> Detector:
        """Returns a function that predicts the classes of a volume, each with the place that got the attention."""
        network = TorchNetwork(self.probability, device)
        return Detector((network,), (), prepare, self.patch_size, names, min_score=self.config.min_score)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the head."""
        return {"encoder": self.encoder, "head": self.head}


class ClassificationHead(nn.Module):
    """Pools tokens by attention for each class, and answers whether the class is there.

    Args:
        in_channels: Dimensions of a token.
        num_answers: Number of classes.
        dropout: Fraction of the pooled features that are dropped in training.
    """

    def __init__(self, in_channels: int, num_answers: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.pool = LayerNorm(in_channels), AttentionPool(in_channels, num_answers)
        self.dropout, self.answer = nn.Dropout(dropout), nn.Linear(in_channels, num_answers)

    def forward(self, tokens: Float[Tensor, "b m d"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n m"]]:
        """Returns the logit of each class, and the weights of the tokens."""
        pooled, weights = self.pool(self.norm(tokens), tokens.new_ones(tokens.shape[:2], dtype=torch.bool))
        logits = (self.dropout(pooled) * self.answer.weight).sum(-1) + self.answer.bias
        return logits.float(), weights


def find_classes(label: Int[Tensor, "b i j k"], num_classes: int) -> tuple[Bool[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Returns which classes but background occur in label crops, and of which this is known.

    A class that does not occur is unknown if some voxel is.
    """
    values = torch.arange(1, num_classes, device=label.device)
    target = (label.flatten(1)[:, :, None] == values).any(1)
    return target, target | (label >= 0).flatten(1).all(1)[:, None]
