"""Divides gradients and optimizer state among the processes of a training, by torch's `fully_shard` (FSDP)."""

from collections.abc import Callable, Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from medssl.data.transforms.map_tensors import map_tensors


class ShardedStrategy(DDPStrategy):
    """A strategy in which each process updates its part of every weight and keeps gradients and moments of that part.

    Between two updates each process holds all weights, so that whatever reads them works as in one process:
    validation, previews and monitors of the main process, and a teacher. State dicts are those of one process, so that
    a run resumes with any strategy and number of processes.

    This is stage 2 of Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models"
    (2020), https://arxiv.org/abs/1910.02054. Frozen weights are not divided.
    """

    sharded: FSDPModule

    def configure_ddp(self) -> None:
        """Divides the trainable weights."""
        module = self._require_module()
        for weight in module.parameters():
            weight.data = weight.data.contiguous()  # fully_shard refuses the order channels last
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        frozen = {weight for weight in module.parameters() if not weight.requires_grad}
        self.sharded = fully_shard(_Caller(module), mesh=mesh, ignored_params=frozen)
        self.sharded.set_reshard_after_backward(False)
        self.model = self.sharded

    def setup(self, trainer: Trainer) -> None:
        """Builds the optimizer over the parts of this process, and gathers the weights for the first step."""
        super().setup(trainer)
        self.sharded.unshard()

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        """Updates the parts of this process, and gathers the weights for the next step."""
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        self.sharded.reshard()
        self.sharded.unshard()
        return result

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the state of the whole module; called in all processes."""
        state: dict[str, Any] = map_tensors(super().lightning_module_state_dict(), _copy_whole)
        self.sharded.unshard()
        return state

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the state of the whole optimizer; called in all processes."""
        state: dict[str, Any] = map_tensors(super().optimizer_state(optimizer), _copy_whole)
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Loads the parts of this process from the state of a whole optimizer."""
        states = zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        divided = [_divide_state(optimizer, state) for optimizer, state in states]
        super().load_optimizer_state_dict({"optimizer_states": divided})

    def restore_weights(self) -> None:
        """Replaces the parts of the weights by whole weights, which ends the training; called in all processes."""
        self.sharded.reshard()
        for module in self._require_module().modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                if isinstance(weight, DTensor):
                    setattr(module, name, nn.Parameter(gather_parts(weight.detach())))
                    module._load_state_dict_post_hooks.clear()  # those of fully_shard expect parts

    def _require_module(self) -> LightningModule:
        if self.lightning_module is None:
            raise RuntimeError("the strategy is set up without a module; this is a bug")
        return self.lightning_module


class RestoreWeights(Callback):
    """Gives all processes the whole weights at the end of a training."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the weights."""
        if isinstance(trainer.strategy, ShardedStrategy):
            trainer.strategy.restore_weights()


def gather_parts(tensor: Tensor) -> Tensor:
    """Returns the whole tensor of one that is divided among processes, and any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _copy_whole(tensor: Tensor) -> Tensor:
    """Returns the whole tensor on the CPU, so that a device holds no more than one at a time."""
    return gather_parts(tensor).cpu()


class _Caller(nn.Module):
    """Calls a module; `fully_shard` changes the class of this one instead of that of the module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *values: Any, **options: Any) -> Any:
        return self.module(*values, **options)


def _divide_state(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Divides the moments of an optimizer as its weights are divided."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    divided = {}
    for number, weight in zip(numbers, weights, strict=True):
        values = state["state"].get(number, {})
        divided[number] = {name: _divide_like(value, weight) for name, value in values.items()}
    return {**state, "state": divided}


def _divide_like(value: Any, weight: Tensor) -> Any:
    if not isinstance(weight, DTensor) or not isinstance(value, Tensor) or value.shape != weight.shape:
        return value
    return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)
