"""Network: what a run must know to build its network again and to feed it as in training."""

from medssl import config
from medssl.data.normalise import Recipe
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.nn import transfer
from medssl.nn.encoder import EncoderConfig, build
from medssl.predict.predictor import Predictor
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.tasks.segment import Config as Segment
from medssl.volume import Spacing


class Network(Settings):
    """An encoder, what it is fed with, and, after finetuning, the task on it and the classes it names."""

    encoder: EncoderConfig
    in_channels: int
    recipe: Recipe
    spacing_mm: Spacing | None
    crop: tuple[int, int, int]
    task: config.named("medssl.tasks") = Segment()  # type: ignore[valid-type]
    labels: dict[int, str] = {}

    @classmethod
    def of(cls, run: Run) -> "Network":
        """The network of a finished run."""
        if not run.closed:
            raise BadInput(f"{run.path}: this run has not finished; go on with resume=true")
        return config.check(run.card["network"], cls, str(run.path / "run.json"))

    def blank(self) -> Task:
        """The task's network with fresh weights."""
        encoder = build(self.encoder, self.in_channels)
        task: Task = config.maker(self.task)(self.task, encoder, max(self.labels) + 1, self.crop)
        return task

    def fits(self, card: Card, in_channels: int, where: str) -> None:
        """Refuses data that were prepared otherwise than what these weights saw."""
        self.recipe.require(card.recipe)
        if self.in_channels != in_channels:
            raise BadInput(f"{where}: {in_channels} channels, the network has {self.in_channels}; use data of one kind")
