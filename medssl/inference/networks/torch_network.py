"""Networks of torch as the sliding window applies them: on a device, in a precision, within the memory there."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from medssl.errors import BadInput, InputWarning
from medssl.inference.sliding_window import Precision

Outputs = Any  # a tensor, or a tuple of tensors
OUT_OF_MEMORY = "can't allocate memory", "not enough memory"  # of a CPU, on Linux and elsewhere
MAX_DOUBLED_VOXELS = 64**3  # a window of 48^3 alone costs 7.4 times as much as in a batch; one of 96^3 as much


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """A network of torch.

    Args:
        function: Maps windows to a tensor, or to a tuple of tensors, with one entry for each window.
        device: The torch device of its weights.
        precision: "fp32", or "bf16" for mixed precision.
    """

    function: Callable[[Tensor], Outputs]
    device: str = "cpu"
    precision: Precision = "fp32"

    def __call__(self, windows: Float32[np.ndarray, "b c i j k"]) -> Outputs:
        """Applies the network without gradients; a single small window on a CPU is doubled, which costs less than one.

        If the memory of the device does not suffice, the batch is halved, with a warning.

        Args:
            windows: The windows.

        Returns:
            The 32-bit outputs, on the device.

        Raises:
            BadInput: The memory does not suffice for a single window.
        """
        is_slow = len(windows) == 1 and self.device == "cpu" and windows[0, 0].size <= MAX_DOUBLED_VOXELS
        try:
            return self._apply(np.repeat(windows, 2, axis=0) if is_slow else windows, len(windows))
        except RuntimeError as error:  # outside of the handler, the failed pass holds no memory
            if not is_out_of_memory(error):
                raise
        if len(windows) == 1:
            size = "x".join(map(str, windows.shape[2:]))
            raise BadInput(f"memory of {self.device}: too small for one window of {size} voxels; predict on the CPU")
        message = f"memory of {self.device}: too small for {len(windows)} windows; the batch is halved"
        warnings.warn(message, InputWarning, stacklevel=2)
        middle = len(windows) // 2
        first, second = self(windows[:middle]), self(windows[middle:])
        if isinstance(first, Tensor):
            return torch.cat([first, second])
        return tuple(torch.cat(pair) for pair in zip(first, second, strict=True))

    def zeros(self, shape: tuple[int, ...]) -> Tensor:
        """Returns zeros on the device."""
        return torch.zeros(shape, device=self.device)

    def to_device(self, array: Float32[np.ndarray, "..."]) -> Tensor:
        """Returns an array of NumPy as a tensor on the device."""
        return torch.from_numpy(array).to(self.device)

    def to_host(self, array: Tensor) -> Float32[np.ndarray, "..."]:
        """Returns a tensor as an array of NumPy."""
        return array.cpu().numpy()

    def _apply(self, windows: Float32[np.ndarray, "b c i j k"], count: int) -> Outputs:
        """Returns the outputs of the first windows."""
        is_mixed = self.precision == "bf16"
        mixed = torch.autocast(torch.device(self.device).type, torch.bfloat16) if is_mixed else nullcontext()
        with torch.no_grad(), mixed:
            outputs = self.function(self.to_device(windows))
        if isinstance(outputs, Tensor):
            return outputs[:count].float()
        return tuple(part[:count].float() for part in outputs)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Returns whether an error states a lack of memory; that of a CPU has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)
