"""What the processes of a training share: sums, rows and random numbers of the global batch.

Process r of n holds rows r b to (r + 1) b of a global batch of n b rows. Each process computes the loss of the global
batch: whatever combines rows goes through these functions, whose gradients flow back to every process. DDP averages
gradients over processes, and the average of n equal losses has the gradient that one process would compute. Outside a
process group each function works on the rows it gets.
"""

from collections.abc import Sequence

import torch
import torch.distributed.nn.functional as differentiable
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Whether this process belongs to a group of processes that train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def get_rank() -> int:
    """Returns the number of this process, from 0."""
    return distributed.get_rank() if is_distributed() else 0


def count_processes() -> int:
    """Returns the number of processes that train together."""
    return distributed.get_world_size() if is_distributed() else 1


def sum_over_processes(x: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes, with gradients if `x` requires them."""
    if not is_distributed():
        return x
    if x.requires_grad and torch.is_grad_enabled():
        return differentiable.all_reduce(x.contiguous())
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total


def divide_sums(total: Tensor, count: Tensor, least: float) -> Tensor:
    """Returns the sum of `total` over all processes divided by the sum of `count`, which is at least `least`.

    Args:
        total: A scalar, with gradient.
        count: A scalar of any type; it gets no gradient.
        least: Smallest divisor.
    """
    if not is_distributed():
        return total / count.clamp_min(least)
    sums = sum_over_processes(torch.stack([total.double(), count.detach().double()]))
    return (sums[0] / sums[1].detach().clamp_min(least)).to(total.dtype)


def all_gather_rows(x: Tensor) -> Tensor:
    """Concatenates the rows of all processes in their order in the global batch, with gradients if `x` requires them.

    Each process gives the same number of rows.
    """
    if not is_distributed():
        return x
    if x.requires_grad and torch.is_grad_enabled():
        return torch.cat(differentiable.all_gather(x.contiguous()))
    rows = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(count_processes())]
    distributed.all_gather(rows, x.detach().contiguous())
    return torch.cat(rows)


def is_true_everywhere(condition: bool, device: torch.device) -> bool:
    """Whether a condition holds in all processes, so that they take the same branch."""
    return int(sum_over_processes(torch.tensor(int(condition), device=device))) == count_processes()


def draw_rows(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draws numbers in [0, 1) for the global batch and returns the rows of this process.

    Args:
        shape: Shape of the rows of this process.
        generator: A generator on the CPU with the same state in all processes.
    """
    return take_own_rows(torch.rand(count_processes() * shape[0], *shape[1:], generator=generator), shape[0])


def split_generator(generator: torch.Generator, rows: int) -> list[torch.Generator]:
    """Returns one generator for each row of this process, seeded for the global batch.

    Args:
        generator: A generator on the CPU with the same state in all processes.
        rows: Number of rows of this process.
    """
    seeds = torch.randint(2**62, (count_processes() * rows,), generator=generator)
    return [torch.Generator().manual_seed(seed) for seed in take_own_rows(seeds, rows).tolist()]


def take_own_rows(rows: Tensor, count: int) -> Tensor:
    """Returns the `count` rows of this process from rows of the global batch."""
    return rows[get_rank() * count :][:count]
