"""Trains a finished run again with its own settings and compares the weights and scores."""

from dataclasses import dataclass
from pathlib import Path

import torch

from medssl import config
from medssl.errors import BadInput
from medssl.nn.interop import weight_transfer
from medssl.run import Run, read_git_state
from medssl.training.finetune import finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig, pretrain
from medssl.training.run_records.environment import describe_environment, find_differences

UNTIMED = ("crops_per_s", "loader_wait", "monitor_")  # scores that depend on the speed of the machine


@dataclass(frozen=True)
class Reproduction:
    """The comparison of a run with its repetition.

    Attributes:
        again: The repetition.
        differences: What differs between the environments and the code of the two; empty if nothing does.
        is_bitwise: Whether the weights are equal, bit for bit.
        weight_difference: Norm of the difference of all weights, relative to the norm of the weights.
        scores: The scores of both, by name, without those that depend on the speed of the machine.
    """

    again: Run
    differences: tuple[str, ...]
    is_bitwise: bool
    weight_difference: float
    scores: dict[str, tuple[float, float]]

    @property
    def largest_score_difference(self) -> float:
        """The largest difference of a score, relative to the larger of the two values and at least to 1."""
        return max((abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in self.scores.values()), default=0.0)

    def describe(self) -> str:
        """Returns the result in one line."""
        if self.is_bitwise:
            return "the weights are equal, bit for bit"
        return (
            f"the weights differ by {self.weight_difference:.2g} of their norm, the scores by at most"
            f" {self.largest_score_difference:.2g}"
        )


def reproduce(run: Run, out: Path) -> Reproduction:
    """Trains a run again on the same manifest, with the same number of threads.

    Args:
        run: A finished pretraining or finetuning.
        out: The folder of the repetition, which must not exist.

    Raises:
        BadInput: The run is not finished, was not trained by medssl, or its manifest or start is missing or changed.
    """
    if not run.is_finished:
        raise BadInput(f"{run.path}: this run has not finished; continue it with resume=true")
    metadata = run.metadata
    environments = metadata.get("environments") or [{}]
    if threads := environments[0].get("threads"):
        torch.set_num_threads(threads)
    again = _train_again(run, out)
    if again.metadata["manifest"] != metadata["manifest"]:
        raise BadInput(f"{run.path}: was trained on other cases than its manifest now holds; restore the store")
    differences = [f"resumed in another environment: {text}" for text in _list_changes(environments)]
    differences += find_differences(environments[0], describe_environment()) if environments[0] else ["no record"]
    if metadata.get("git") != read_git_state():
        differences.append("the code of medssl")
    first, second = (weight_transfer.read_tensors(path.weights) for path in (run, again))
    is_bitwise = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    squares = [(float((first[n] - second[n]).double().square().sum()), first[n]) for n in first if n in second]
    norm = sum(float(tensor.double().square().sum()) for _, tensor in squares)
    scores = {
        name: (float(value), float(again.metadata["scores"].get(name, float("nan"))))
        for name, value in metadata["scores"].items()
        if not name.startswith(UNTIMED)
    }
    distance = (sum(square for square, _ in squares) / max(norm, 1e-30)) ** 0.5
    return Reproduction(again, tuple(differences), is_bitwise, distance, scores)


def _train_again(run: Run, out: Path) -> Run:
    values = run.read_settings() | {"run": out, "resume": False}
    source = str(run.path / "config.yaml")
    kind = run.metadata["kind"]
    if kind == "pretrain":
        return pretrain(config.check(values, PretrainConfig, source))
    if kind == "finetune":
        return finetune(config.check(values, FinetuneConfig, source))
    raise BadInput(f"{run.path}: is of kind {kind!r}; only pretrainings and finetunings can be made again")


def _list_changes(environments: list[dict[str, object]]) -> list[str]:
    """Returns how the environments in which a run was resumed differ from the first."""
    return [text for later in environments[1:] for text in find_differences(environments[0], later)]
