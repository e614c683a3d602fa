"""Contract of a supervised task: an encoder, a loss on labelled crops, and class probabilities."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.inference.networks.torch_network import TorchNetwork
from medssl.inference.predictor import Predictor
from medssl.inference.streaming.case_stream import Prediction
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.volume import Volume


class Task(nn.Module):
    """A network that learns from labelled crops and predicts class probabilities.

    Attributes:
        selection_metric: Name of the score of `validate` that selects the weights of a training; higher is better.
        by_component: Whether foreground crops are drawn from connected components, each with equal probability,
            instead of from classes.

    Args:
        config: Settings of the task.
        encoder: Encoder of the network.
        num_classes: Number of classes with background.
        patch_size: Size of the sliding window in voxels.
    """

    selection_metric = "dice"
    by_component = False

    def __init__(self, config: Settings, encoder: Encoder, num_classes: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.num_classes = num_classes
        self.patch_size = patch_size

    def step(self, crops: Crops) -> Step:
        """Returns the loss on a labelled batch."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Runs once after each optimizer step; does nothing by default."""

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns the class probabilities of crops, background first."""
        raise NotImplementedError

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Returns the scores of one whole labelled volume."""
        raise NotImplementedError

    def predictor(
        self, prepare: Callable[[Volume], Volume], names: Mapping[int, str], device: str
    ) -> Callable[[Volume, str], Prediction]:
        """Returns a function from a volume and a case id to a prediction; by default, a voxel-wise segmentation.

        Args:
            prepare: Maps a scan to the network's input.
            names: Class names by label value, without background.
            device: Device that predicts.
        """
        return Predictor(TorchNetwork(self.probability, device), prepare, self.patch_size, names)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the parts that are saved, and that pretrained weights can be loaded into."""
        raise NotImplementedError
