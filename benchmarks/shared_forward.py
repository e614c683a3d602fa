"""A step of `sum` whose objectives share one encoding of the visible patches, against one that encodes for each."""

import time
from statistics import median

import torch

from medssl.data.crops import Crops
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.objectives.sum import Config, Sum

SIDE, BATCH, STEPS, WARM = 48, 2, 5, 1
SUMS = {
    "spark + select_patch (SSAST)": ({"spark": 10, "select_patch": 1}, {"select_patch": {"mask_ratio": 0.75}}),
    "spark + jepa": ({"spark": 1, "jepa": 1}, {}),
}


def main() -> None:
    """Prints the CPU time of a training step of each sum with equal and with different masks, in turn."""
    torch.set_num_threads(1)
    print(f"The default encoder, {BATCH} crops of {SIDE}^3, fp32, 1 thread; medians of {STEPS} steps in turn.\n")
    print("| sum | shared, CPU s | one encoding each, CPU s | shared against each |\n|---|---|---|---|")
    for name, (weights, terms) in SUMS.items():
        last = list(weights)[-1]
        other_masks = terms | {last: terms.get(last, {}) | {"seed": 1}}
        arms = [build(weights, terms), build(weights, other_masks)]
        times: list[list[float]] = [[], []]
        for step in range(STEPS + WARM):
            for arm, seconds in zip(arms, times, strict=True):
                seconds.append(measure_step(arm, step))
        shared, each = (median(seconds[WARM:]) for seconds in times)
        print(f"| {name} | {shared:.2f} | {each:.2f} | {shared / each:.2f} |", flush=True)


def build(weights: dict[str, float], terms: dict[str, dict[str, object]]) -> Sum:
    """Returns a sum on an encoder with fresh weights; masks with another seed are not shared."""
    torch.manual_seed(0)
    return Sum(Config.model_validate({"weights": weights, "terms": terms}), build_encoder(EncoderConfig(), 1))


def measure_step(objective: Sum, seed: int) -> float:
    """CPU seconds of the loss and its gradients on random crops."""
    x = torch.rand(BATCH, 1, 1, SIDE, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    affine = torch.eye(4).repeat(BATCH, 1, 1, 1)
    corner, size = torch.zeros(BATCH, 1, 3, dtype=torch.long), torch.full((BATCH, 3), SIDE)
    crops = Crops(x=x, corner=corner, size=size, affine=affine, volume=torch.arange(BATCH))
    start = time.process_time()
    objective.step(objective.prepare(crops)).loss.backward()
    seconds = time.process_time() - start
    objective.zero_grad()
    return seconds


if __name__ == "__main__":
    main()
