"""Teachers: frozen copies of a network that follow it by an exponential moving average of the weights.

Tarvainen and Valpola, "Mean teachers are better role models" (2017), https://arxiv.org/abs/1703.01780; He et al.,
"Momentum contrast" (2020), https://arxiv.org/abs/1911.05722.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def copy_as_teacher(student: Network) -> Network:
    """Returns a copy of a network without gradients."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Keeps the fraction `momentum` of each weight of the teacher, and takes the rest from the student.

    Buffers, such as the running statistics of norms, are copied as they are.
    """
    weights, buffers = dict(student.named_parameters()), dict(student.named_buffers())
    for name, average in teacher.named_parameters():
        average.lerp_(weights[name], 1 - momentum)
    for name, buffer in teacher.named_buffers():
        buffer.copy_(buffers[name])
