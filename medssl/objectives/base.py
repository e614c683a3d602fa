"""What an objective is: an encoder, a config, and a step from crops to a loss."""

from jaxtyping import Float
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn.encoder import Encoder, cells
from medssl.nn.step import Step
from medssl.settings import Settings


class Objective(nn.Module):
    """Turns unlabelled crops into a loss; has an encoder, and says how many views of a crop it wants."""

    views: int = 1
    compares: bool = False  # True: compares embeddings, and each step gives true pairs of them
    turns: bool = True  # False: compares places through the patient, so that a crop keeps the geometry it was cut with

    def __init__(self, config: Settings, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder

    def fits(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Refuses crops of a shape that nothing can be learnt from; looks at the shape alone."""
        cells(x, self.encoder.cell)

    def step(self, crops: Crops) -> Step:
        """The loss on a batch."""
        raise NotImplementedError

    def after_step(self) -> None:
        """What happens once after each optimiser step, as an EMA of the weights; nothing by default."""

    def transferable(self) -> dict[str, nn.Module]:
        """The parts a task can start from: always the encoder; the decoder where it is the downstream one."""
        return {"encoder": self.encoder}

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Named volumes of the first crop that show a person what is being learnt; none by default."""
        return {}
