"""Networks in ONNX files as the sliding window applies them, with onnxruntime and without torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from medssl.errors import BadInput
from medssl.inference.sliding_window import Size

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
QUIET = 4  # only fatal errors are printed; the others are raised
RUNTIME_ERRORS = (
    errors.EPFail, errors.EngineError, errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
    errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException, RuntimeError, MemoryError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A network in an ONNX file, with windows of one size in batches of any size.

    Args:
        path: The file, for messages.
        session: What runs the file.
        outputs: The names of the outputs that a call returns; one is returned as an array, several as a tuple.
    """

    path: Path
    session: "onnxruntime.InferenceSession"
    outputs: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, channels: int, crop: Size, device: str, num_threads: int = 0) -> "OnnxNetwork":
        """Opens a file.

        Args:
            path: The file, whose metadata `read_metadata` accepted.
            channels: The number of channels that its input must have.
            crop: The size of the windows that its input must have, in voxels.
            device: "cpu", "cuda" or "cuda:NUMBER".
            num_threads: The number of threads; 0 takes OMP_NUM_THREADS, or as many as there are processor cores.

        Raises:
            BadInput: If the file is damaged, or has another input.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or 0)
        options.log_severity_level = QUIET
        kind, _, number = device.partition(":")
        provider = (PROVIDERS[kind], {"device_id": number or "0"} if kind == "cuda" else {})
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=[provider])
        except RUNTIME_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{path}: onnxruntime cannot open it ({reason}); publish the run again") from None
        inputs = [list(node.shape)[1:] for node in session.get_inputs()]
        if inputs != [[channels, *crop]]:
            raise BadInput(
                f"{path}: its input is {inputs}, its metadata state {[channels, *crop]}; publish the run again"
            )
        return cls(path, session, tuple(node.name for node in session.get_outputs()))

    def select_outputs(self, names: Sequence[str]) -> "OnnxNetwork":
        """Returns the network with some of its outputs; raises BadInput if one does not exist."""
        if missing := sorted(set(names) - set(self.outputs)):
            raise BadInput(f"{self.path}: has no output {missing[0]}; publish the run again")
        return replace(self, outputs=tuple(names))

    def require_classes(self, output: str, count: int) -> None:
        """Raises BadInput if an output exists that has another number of classes."""
        shapes = [list(node.shape) for node in self.session.get_outputs() if node.name == output]
        if any(len(shape) < 2 or shape[1] != count for shape in shapes):
            raise BadInput(
                f"{self.path}: its output has the shape {shapes[0]}, its metadata state {count} classes; publish the "
                "run again"
            )

    def __call__(self, windows: Float32[np.ndarray, "b c i j k"]) -> Any:
        """Returns the outputs for windows."""
        try:
            results = self.session.run(list(self.outputs), {self.session.get_inputs()[0].name: windows})
        except RUNTIME_ERRORS as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{self.path}: onnxruntime cannot run it ({reason}); try a smaller --batch") from None
        if any(result.dtype != np.float32 or len(result) != len(windows) for result in results):
            raise BadInput(f"{self.path}: its outputs are no 32-bit values for each window; publish the run again")
        return results[0] if len(results) == 1 else tuple(results)

    def zeros(self, shape: tuple[int, ...]) -> Float32[np.ndarray, "..."]:
        """Returns zeros."""
        return np.zeros(shape, np.float32)

    def to_device(self, array: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
        """Returns the same array: that of a GPU is copied there by onnxruntime."""
        return array

    def to_host(self, array: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
        """Returns the same array."""
        return array


def require_provider(device: str) -> str:
    """Returns a device; raises BadInput if onnxruntime cannot use it here."""
    kind, _, number = device.partition(":")
    if kind not in PROVIDERS or (number and not (kind == "cuda" and number.isdigit())):
        raise BadInput(f"--device {device}: is not cpu, cuda or cuda:NUMBER")
    if PROVIDERS[kind] not in onnxruntime.get_available_providers():
        raise BadInput(f"--device {device}: this onnxruntime uses no GPU; pip install onnxruntime-gpu, or --device cpu")
    return device
