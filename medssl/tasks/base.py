"""What a task is: an encoder, a decoder, and a step from labelled crops to a loss."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.inference.predictor import Prediction, Predictor
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.settings import Settings
from medssl.volume import Volume


class Task(nn.Module):
    """Learns from labelled crops; has an encoder, and gives class probabilities for a crop.

    `selects` is the score of `validate` by which the weights of a training are chosen; `by_part` has crops drawn about
    every connected part of a class alike.
    """

    selects = "dice"
    by_part = False

    def __init__(self, config: Settings, encoder: Encoder, classes: int, crop: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.classes = classes
        self.crop = crop

    def step(self, crops: Crops) -> Step:
        """The loss on a labelled batch."""
        raise NotImplementedError

    def after_step(self) -> None:
        """What happens once after each optimiser step; nothing by default."""

    def probability(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Class probabilities of a crop, background first."""
        raise NotImplementedError

    def validate(self, crops: Crops) -> dict[str, Tensor]:
        """Scores of one whole volume."""
        raise NotImplementedError

    def predictor(
        self, prepare: Callable[[Volume], Volume], names: Mapping[int, str], device: str
    ) -> Callable[[Volume, str], Prediction]:
        """How a volume of a case is predicted: by default, every voxel gets its likeliest class."""
        return Predictor(self.probability, prepare, self.crop, names, device=device)

    def transferable(self) -> dict[str, nn.Module]:
        """The parts that are saved and that an objective's weights can fill."""
        raise NotImplementedError
