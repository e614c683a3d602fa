"""Network: what a run must know to build its network again and to feed it as in training."""

import math
from collections.abc import Callable

import torch
from pydantic import Field

from medssl import config
from medssl.data.manifest import Manifest
from medssl.data.normalization import Recipe
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.inference.predictor import Prediction
from medssl.nn import kernel_norms as lengths
from medssl.nn.encoder import Choice, Encoder, Named, build, cells, words
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.settings import Settings
from medssl.tasks.base import Task
from medssl.tasks.segment import Config as Segment
from medssl.volume import Spacing, Unit, Volume


class Network(Settings):
    """An encoder, what it is fed with, and, once finetuned, the task on it and the classes it names."""

    encoder: Named
    in_channels: int
    recipe: Recipe
    spacing_mm: Spacing | None
    crop: tuple[int, int, int]
    task: config.named("medssl.tasks") = Segment()  # type: ignore[valid-type]
    labels: dict[int, str] = Field({}, description="class names; none before finetuning")
    units: tuple[Unit, ...] = Field((), description="of the scans it is for; none where nobody wrote them down")

    @classmethod
    def on(cls, manifest: Manifest, encoder: Choice, crop: tuple[int, int, int]) -> "Network":
        """A network for the cases of a store."""
        card = Card.read(manifest.folder)
        channels = {case.channels for case in manifest.cases}
        if len(channels) != 1:
            raise BadInput(f"{manifest.folder}: cases with {sorted(channels)} channels; train on cases of one kind")
        told = {"in_channels": channels.pop(), "recipe": card.recipe, "spacing_mm": card.spacing_mm, "crop": crop}
        return cls(encoder=encoder, units=units(manifest), **told)

    @classmethod
    def of(cls, run: Run) -> "Network":
        """The network of a finished run."""
        if not run.closed:
            raise BadInput(f"{run.path}: this run has not finished; go on with resume=true")
        told = run.card["network"]
        if told.get("task", {}).get("name") == "segment":
            told["task"] = {"linear": False} | told["task"]  # as all were before they could choose
        return config.check(told, cls, str(run.path / "run.json"))

    def body(self) -> Encoder:
        """The encoder with fresh weights."""
        return build(self.encoder, self.in_channels)

    def blank(self) -> Task:
        """The task's network with fresh weights; refuses a crop that it cannot take."""
        body = self.body()
        cells(torch.empty(1, self.in_channels, *self.crop, device="meta"), body.cell)
        task: Task = config.class_for_config(self.task)(self.task, body, max(self.labels) + 1, self.crop)
        return task

    def started(
        self,
        pretrained: Run,
        allow_recipe_mismatch: bool = False,
        channels: tuple[int, ...] = (),
        rescale: bool = False,
    ) -> tuple[Task, transfer.Ledger]:
        """The task's network with all it can take from a pretraining, and what became of every tensor.

        With `rescale` kernels before a norm get the length that they have in a fresh network.
        """
        self.follows(pretrained, allow_recipe_mismatch, channels)
        task = self.blank()
        fresh = lengths.lengths(task.encoder) if rescale else None
        ledger = transfer.load(pretrained.weights, task.transferable(), channels)
        if fresh is not None:
            lengths.rescale(task.encoder, fresh)
        return task, ledger

    def follows(self, run: Run, allow_recipe_mismatch: bool = False, channels: tuple[int, ...] = ()) -> None:
        """Refuses weights of another encoder, or learnt on data that another recipe made."""
        before = Network.of(run).having(channels)
        if channels and before.in_channels != self.in_channels:
            raise BadInput(f"channels={list(channels)}: these scans have {self.in_channels}; name one for each")
        if not allow_recipe_mismatch:
            before.recipe.require(self.recipe)
        if before.encoder != self.encoder:
            raise BadInput(f"{run.path}: its encoder is not this training's; give {words(before.encoder)}")

    def having(self, channels: tuple[int, ...]) -> "Network":
        """The network for scans that hold only these of its channels, in this order; () for all."""
        if not channels:
            return self
        if len(set(channels)) < len(channels) or not set(channels) <= set(range(self.in_channels)):
            raise BadInput(f"channels={list(channels)}: the network knows 0 to {self.in_channels - 1}, each once")
        marks = tuple(self.recipe.landmarks[c] for c in channels) if self.recipe.landmarks else ()
        hu = tuple(n for n, c in enumerate(channels) if c in self.recipe.hu_channels and len(channels) > 1)
        recipe = self.recipe.model_copy(update={"landmarks": marks, "hu_channels": hu})
        left = self.units
        if left and self.recipe.hu_channels:
            left = ("HU",) if set(channels) <= set(self.recipe.hu_channels) else ("a.u.",)
        return self.model_copy(update={"in_channels": len(channels), "recipe": recipe, "units": left})

    def prepare(self, volume: Volume) -> Volume:
        """A volume from a scanner -> RAS, the training's spacing, the network's input in [0, 1]."""
        channels = volume.voxels.size // math.prod(volume.shape)
        if channels != self.in_channels:
            raise BadInput(f"this scan has {channels} channels, the network wants {self.in_channels}")
        if self.units and volume.unit not in self.units:
            this, those = ("a CT", "others") if volume.unit == "HU" else ("no CT", "CTs")
            raise BadInput(f"this scan is {this}, the network learnt from {those} alone; --modality tells what it is")
        return self.recipe.input(volume, self.spacing_mm)


def units(manifest: Manifest) -> tuple[Unit, ...]:
    """What the voxels of its scans measure."""
    told: set[Unit] = {"HU" if case.unit == "HU" else "a.u." for case in manifest.cases}
    return tuple(sorted(told))


def fastest() -> str:
    """The device that predicts: a GPU, where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def predictor(run: Run, device: str = "cpu", channels: tuple[int, ...] = ()) -> Callable[[Volume, str], Prediction]:
    """A finished finetuning as volume -> prediction; for scans that lack channels, `channels` names those they have."""
    network = Network.of(run).having(channels)
    if not network.labels:
        raise BadInput(f"{run.path}: a pretraining names no classes; predict with a run of `medssl finetune`")
    task = network.blank()
    transfer.load(run.weights, task.transferable(), channels)
    task = task.eval().to(device)
    return task.predictor(network.prepare, network.labels, device)
