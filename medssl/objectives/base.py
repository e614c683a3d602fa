"""The base class of self-supervised objectives, which compute a loss from unlabelled crops."""

from jaxtyping import Float
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn.encoder import Encoder, count_patches
from medssl.nn.step import Step
from medssl.settings import Settings


class Objective(nn.Module):
    """Computes a loss from unlabelled crops to train an encoder.

    Attributes:
        views: Number of crops of each volume.
        is_contrastive: Whether the objective compares embeddings; if so, each step returns positive pairs.
        allows_spatial_augmentation: Whether crops may be rotated and scaled. False if the objective compares positions
            by patient coordinates, so that crops have to keep the geometry they were cut with.
    """

    views: int = 1
    is_contrastive: bool = False
    allows_spatial_augmentation: bool = True

    def __init__(self, config: Settings, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops of this shape cannot be trained on; only the shape is used."""
        count_patches(x, self.encoder.patch)

    def step(self, crops: Crops) -> Step:
        """Computes the loss of a batch."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Runs after each optimizer step, for example to update an EMA of the weights; does nothing by default."""

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the modules that finetuning can start from: always the encoder, and a decoder of the same type."""
        return {"encoder": self.encoder}

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns named volumes of the first crop that illustrate the objective; none by default."""
        return {}
