"""Estimates memory, arithmetic and parameters of a U-Net from shapes alone, and the speed of the machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import BaseEncoderConfig
from medssl.planning.network_geometry import Triple

STATE_BYTES = 16  # per parameter: weight, gradient and the two moments of Adam, in float32
PROCESS_GB = 0.8  # libraries and the crops of the loader
WORKSPACE = 1.3  # gradients of activations and buffers of convolutions, relative to what is saved for them
BACKWARD = 2  # arithmetic of a backward pass, in forward passes
SPEED_REPEATS, SPEED_WIDTH, SPEED_SIDE = 5, 32, 32


@dataclass(frozen=True)
class NetworkCost:
    """What one crop costs a U-Net.

    Attributes:
        parameters: Number of weights of encoder and decoder.
        flops: Floating-point operations of a forward pass.
        saved_bytes: Activations that a forward pass keeps for the backward pass.
    """

    parameters: int
    flops: float
    saved_bytes: float

    def memory_gb(self, batch_size: int) -> float:
        """Returns the estimated peak memory of a training step in GB."""
        return PROCESS_GB + (STATE_BYTES * self.parameters + WORKSPACE * batch_size * self.saved_bytes) / 2**30

    def step_seconds(self, batch_size: int, flops_per_s: float) -> float:
        """Returns the estimated seconds of a training step."""
        return (1 + BACKWARD) * batch_size * self.flops / flops_per_s


@lru_cache(maxsize=256)
def estimate_cost(encoder: BaseEncoderConfig, in_channels: int, patch_size: Triple) -> NetworkCost:
    """Returns the cost of one crop, by a forward pass on shapes only.

    Args:
        encoder: The config of the encoder; its U-Net decoder is added.
        in_channels: Number of input channels.
        patch_size: Voxels of a crop.
    """
    with torch.random.fork_rng(), torch.device("meta"):
        network = encoder.build(in_channels)
        decoder = UNetDecoder(network.channels, network.strides, network.kernels)
        x = torch.empty(1, in_channels, *patch_size)
    network.to("meta")
    sizes: dict[int, int] = {}
    parameters = {id(p.untyped_storage()) for part in (network, decoder) for p in part.parameters()}

    def count(tensor: Tensor) -> Tensor:
        if id(tensor.untyped_storage()) not in parameters:
            sizes[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        maps = decoder(network(x))
    del maps
    return NetworkCost(
        _count_parameters(network) + _count_parameters(decoder), counter.get_total_flops(), sum(sizes.values())
    )


def measure_speed(device: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Returns the floating-point operations per second of a convolution, forward and backward; the best of a few.

    Args:
        device: The torch device.
        clock: Returns seconds; those of the process instead of the wall leave out what others take of a CPU.
    """
    layer = nn.Conv3d(SPEED_WIDTH, SPEED_WIDTH, 3, padding=1).to(device)
    layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    x = torch.ones(1, SPEED_WIDTH, SPEED_SIDE, SPEED_SIDE, SPEED_SIDE, device=device, requires_grad=True)
    flops = (1 + BACKWARD) * 2 * 27 * SPEED_WIDTH**2 * SPEED_SIDE**3
    seconds = []
    for _ in range(SPEED_REPEATS + 1):
        begin = clock()
        layer(x).sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - begin)
    return flops / min(seconds[1:])


def _count_parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
