"""Explains failures of the machine, not of the program, in one line with the step after which the training goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from medssl.errors import BadInput
from medssl.training.fault_tolerance.checkpoint_files import STEP, list_checkpoints

SMALLER = "start another run with a smaller train.batch_size or patch_size, or with train.precision=bf16"
# Words of the error of torch, and what they mean.
CAUSES = {
    "DataLoader worker": "a data loader process died, most often for lack of memory; lower train.num_workers in"
    " another run, or free memory",
    "not enough memory": f"the memory is exhausted; {SMALLER}",
    "can't allocate memory": f"the memory is exhausted; {SMALLER}",
}


@contextmanager
def explain_failures(folder: Path) -> Iterator[None]:
    """Turns a lack of memory and the death of a loader process into BadInput; other errors pass.

    Args:
        folder: The folder of the run.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        cause = find_cause(error)
        if not cause:
            raise
        steps = [int(path.stem.partition("-")[2]) for path in list_checkpoints(folder, STEP)]
        continues = f"resume=true continues this one after step {steps[0]}" if steps else "no step was saved"
        raise BadInput(f"{folder}: {cause}; {continues}") from error


def find_cause(error: BaseException) -> str:
    """Returns the cause of an error if it is one of the machine, or an empty string."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU is out of memory; {SMALLER}"
    if isinstance(error, MemoryError):
        return f"the memory is exhausted; {SMALLER}"
    return next((cause for words, cause in CAUSES.items() if words in str(error)), "")
