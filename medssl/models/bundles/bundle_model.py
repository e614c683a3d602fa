"""The whole network of a MONAI bundle as a model that predicts."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float, Float32
from pydantic import BeforeValidator, Field, PositiveInt
from scipy.special import expit, softmax
from torch import Tensor, nn

from medssl import config
from medssl.errors import BadInput
from medssl.inference.networks.torch_network import TorchNetwork, is_out_of_memory
from medssl.inference.predictor import Predictor
from medssl.inference.sliding_window import WindowStyle
from medssl.models.bundles.preprocessing import BundleStep, to_float32
from medssl.models.prediction.interface import ModelInterface
from medssl.nn.interop import weight_transfer
from medssl.nn.interop.monai_networks import PART, MonaiNetwork
from medssl.run import Run
from medssl.settings import Settings
from medssl.volume import Volume

BUNDLE = "bundle"  # the key of run.json


class BundleInferer(Settings):
    """The arguments of MONAI's SlidingWindowInferer that change a result, with its defaults."""

    roi_size: Annotated[
        tuple[PositiveInt, PositiveInt, PositiveInt],
        BeforeValidator(lambda value: [value] * 3 if isinstance(value, int) else value),
    ] = Field(description="size of a window in voxels")
    overlap: float = Field(0.25, ge=0, le=0.9, description="fraction of a window that overlaps the next one")
    mode: Literal["constant", "gaussian"] = Field("constant", description="weights of the voxels of a window")
    padding_mode: Literal["constant", "replicate"] = Field("constant", description="values around a small volume")
    cval: Literal[0] = Field(0, description="value around a small volume")
    sigma_scale: float = Field(
        0.125, ge=0.125, le=0.125, description="width of the Gaussian, as a fraction of the window"
    )

    def to_style(self) -> WindowStyle:
        """Returns how the windows are weighted and padded."""
        return WindowStyle(self.mode == "gaussian", self.padding_mode == "replicate")


class BundleModel(ModelInterface):
    """The network of a bundle, with its preprocessing and inferer; stored in run.json.

    As in MONAI, windows are averaged before the activation. Deviation: probabilities are interpolated on the grid of
    the scan and decided there, also where the bundle decides first and takes the nearest voxel.
    """

    network: MonaiNetwork = Field(description="the network of MONAI")
    steps: tuple[BundleStep, ...] = Field(description="what a scan passes before the network")
    inferer: BundleInferer = Field(description="the sliding window")
    activation: Literal["softmax", "sigmoid"] = Field(description="what turns outputs into probabilities")

    @classmethod
    def from_run(cls, run: Run) -> "BundleModel":
        """Reads the model of an imported bundle."""
        return config.check(run.metadata[BUNDLE], cls, str(run.path / "run.json"))

    def prepare(self, volume: Volume) -> Volume:
        """Returns the network input for a scan: what it is after all steps."""
        self.require_fitting_scan(volume)
        prepared = to_float32(volume)
        for step in self.steps:
            prepared = step.apply(prepared)
        return prepared

    def build_predictor(self, run: Run, device: str) -> Predictor:
        """Returns the predictor of a run that holds this model.

        Args:
            run: The run.
            device: The torch device that predicts.
        """
        network = self.network.build()
        weight_transfer.load_parts(run.weights, {PART: network})
        activate: Callable[[Float32[np.ndarray, "n i j k"]], Float32[np.ndarray, "n i j k"]]
        activate = apply_softmax if self.activation == "softmax" else apply_sigmoid
        function = partial(_apply_network, network.eval().to(device), where=str(run.path))
        return Predictor(
            TorchNetwork(function, device), self.prepare, self.patch_size, self.labels,
            self.inferer.overlap, organs=self.list_organs(), activate=activate, window_style=self.inferer.to_style(),
            is_filtered=False,
        )  # fmt: skip


def _apply_network(network: nn.Module, windows: Float[Tensor, "b c i j k"], where: str) -> Float[Tensor, "b n i j k"]:
    """Applies a network of MONAI; raises BadInput if it cannot take windows of this size."""
    try:
        outputs: Tensor = network(windows)
    except (RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        size = "x".join(map(str, windows.shape[2:]))
        raise BadInput(
            f"{where}: the network cannot take windows of {size} voxels ({' '.join(str(error).split())[:200]});"
            " import the bundle again with another --set inferer#roi_size"
        ) from None
    if outputs.shape[2:] != windows.shape[2:]:
        raise BadInput(
            f"{where}: the network returns {tuple(outputs.shape)}, no class of each voxel; it cannot predict"
        )
    return outputs


def is_bundle(run: Run) -> bool:
    """Returns whether a run holds the whole network of a bundle."""
    return BUNDLE in run.metadata


def apply_softmax(logits: Float32[np.ndarray, "n i j k"]) -> Float32[np.ndarray, "n i j k"]:
    """Returns class probabilities, background first."""
    return softmax(logits, axis=0)


def apply_sigmoid(logits: Float[np.ndarray, "1 i j k"]) -> Float32[np.ndarray, "2 i j k"]:
    """Returns the probabilities of background and of the only class."""
    probability = expit(logits)
    return np.concatenate([1 - probability, probability])
