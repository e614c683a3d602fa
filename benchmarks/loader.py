"""Whether the loader keeps a training fed: crops a second of one core, and time waited against that of a SparK step."""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import torch
from scipy import ndimage
from torch import Generator, Tensor
from torch.nn import functional

from medssl.data import store
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.crop_dataset import CropDataset
from medssl.data.pools.pending_crops import PendingCrops
from medssl.data.transforms import augmentation, spatial
from medssl.data.transforms.augmentation import AugmentConfig
from medssl.data.transforms.spatial import Spacing, Triple, draw_uniform_number
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.objectives.reconstruction.spark import Config, Spark
from medssl.training import data_loaders as feed
from medssl.training.config import TrainConfig
from medssl.volume import Volume

CASES, SHAPE, STEPS, WARM = 4, (256, 256, 160), 6, 1
CROPS = ((64, 4), (96, 1))  # side, crops in a batch
SIDES, REPEATS = (64, 96, 128, 160), 12  # crops that are timed one by one


def main() -> None:
    """Prints two markdown tables."""
    size = "x".join(map(str, SHAPE))
    with tempfile.TemporaryDirectory() as name:
        print_speed_of_one_core(pool(Path(name)))
    torch.set_num_threads(2)
    print(f"SparK by default on augmented crops of {CASES} CTs of {size}; CPU, 2 threads, medians of {STEPS} steps\n")
    print("| crop | batch | loader | step s | waited ms | share of the time | crops/s |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        manifest = pool(Path(name))
        for side, batch in CROPS:
            for workers, where in enumerate(("in the training's process", "one worker")):
                step, wait = epoch(manifest, side, batch, workers)
                row = f"| {side}^3 | {batch} | {where} | {step:.2f} | {1000 * wait:.0f} "
                print(f"{row}| {wait / (wait + step):.1%} | {batch / (wait + step):.2f} |", flush=True)


def print_speed_of_one_core(manifest: Manifest) -> None:
    """Prints the CPU time of a crop, plain and augmented, and with torch's own operators in the augmentation."""
    torch.set_num_threads(1)
    print(f"One crop of a CT, CPU time of one thread, means of {REPEATS} crops with the same random numbers\n")
    print("| crop | plain ms | augmented ms | left to the device ms | with torch's operators ms | ratio ", end="")
    print("| plain crops/s a core | augmented | left to the device |\n|---|---|---|---|---|---|---|---|---|")
    for side in SIDES:
        plain, augmented = (time_crops(manifest, side, config) for config in (None, AugmentConfig()))
        pending = time_crops(manifest, side, AugmentConfig(), lambda crops, n: PendingCrops.pack([crops.draw_item(n)]))
        with torch_operators():
            slow = time_crops(manifest, side, AugmentConfig())
        row = f"| {side}^3 | {1000 * plain:.1f} | {1000 * augmented:.0f} | {1000 * pending:.0f} | {1000 * slow:.0f} "
        speeds = f"{1 / plain:.0f} | {1 / augmented:.0f} | {1 / pending:.0f}"
        print(f"{row}| {slow / augmented:.1f} | {speeds} |", flush=True)
    print()


def time_crops(
    manifest: Manifest,
    side: int,
    config: AugmentConfig | None,
    load: Callable[[CropDataset, int], object] = CropDataset.__getitem__,
) -> float:
    """Mean CPU seconds of a crop."""
    dataset = CropDataset(manifest, IntensityNormalization(), (side, side, side), augment_config=config)
    load(dataset, 0)
    start = time.process_time()
    for number in range(REPEATS):
        load(dataset, number)
    return (time.process_time() - start) / REPEATS


@contextmanager
def torch_operators() -> Iterator[None]:
    """Interpolates volumes and blurs with the operators that torch has for volumes while the block runs."""

    def interpolate(image: Tensor, positions: Tensor, out: Tensor) -> None:
        last = torch.tensor(image.shape[1:])[:, None, None, None] - 1
        grid = (2 * positions / last - 1).flip(0).movedim(0, -1)[None]
        out.copy_(functional.grid_sample(image[None], grid, padding_mode="border", align_corners=True)[0])

    with (
        patch.object(spatial, "interpolate_linear", interpolate),
        patch.object(augmentation, "_draw_quality", draw_quality),
        patch.object(augmentation, "multiply_axes", lower_quality),
    ):
        yield


@dataclass(frozen=True)
class Quality:
    """The widths of a blur along the axes in voxels, and the shape of a coarse scan; empty for none."""

    sigmas: tuple[float, ...]
    coarse_shape: tuple[int, ...]


def draw_quality(config: AugmentConfig, size: Triple, spacing_mm: Spacing, generator: Generator) -> tuple[Quality, ...]:
    """Draws the blur and the coarse scan that the augmentation draws."""
    has_blur, is_coarse = (augmentation._draw_chance(config, generator) for _ in range(2))
    sigmas, shape = (), ()
    if has_blur:
        sigma = draw_uniform_number(generator, 0.3, max(0.3, config.blur))
        sigmas = tuple(sigma * min(spacing_mm) / mm for mm in spacing_mm)
    if is_coarse:
        coarse_mm = min(spacing_mm) / draw_uniform_number(generator, config.zoom, 1)
        shape = tuple(max(1, round(n * min(1.0, mm / coarse_mm))) for n, mm in zip(size, spacing_mm, strict=True))
    return (Quality(sigmas, shape),)


def lower_quality(quality: tuple[Quality, ...], x: Tensor) -> Tensor:
    """Blurs and coarsens as the augmentation does, by a convolution along each axis and by two resamplings."""
    for axis, sigma in enumerate(quality[0].sigmas):
        x = convolve(x, sigma, axis)
    if quality[0].coarse_shape:
        coarse = functional.interpolate(x[None], size=quality[0].coarse_shape, mode="trilinear", align_corners=False)
        x = functional.interpolate(coarse, size=x.shape[1:], mode="trilinear", align_corners=False)[0]
    return x


def convolve(x: Tensor, sigma: float, axis: int) -> Tensor:
    """Convolves an axis with a Gaussian, beyond the ends with the last voxel."""
    radius = math.ceil(2 * sigma)
    kernel, shape, pad = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2), [1] * 5, [0] * 6
    shape[2 + axis] = len(kernel)
    pad[4 - 2 * axis] = pad[5 - 2 * axis] = radius
    padded = functional.pad(x[:, None], pad, mode="replicate")
    return functional.conv3d(padded, (kernel / kernel.sum()).view(shape))[:, 0]


def pool(folder: Path) -> Manifest:
    """A store of unlabelled CTs: smooth structures with noise, air around them."""
    random, cases = np.random.default_rng(0), []
    for n in range(CASES):
        smooth = ndimage.zoom(random.normal(0, 300, (16, 16, 10)).astype(np.float32), 16, order=1)
        voxels = (smooth + random.normal(0, 25, SHAPE)).round().astype(np.int16)[None]
        voxels[:, :40] = voxels[:, -40:] = -1000
        sha = store.write(folder / f"{n}.b2nd", Volume(voxels, np.diag([1.0, 1.0, 1.5, 1.0]), "HU"), {})
        blank = Case(str(n), str(n), f"{n}.b2nd", None, "CT", "HU", (1.0, 1.0, 1.5), SHAPE, 1, "train", "", "")
        cases.append(replace(blank, sha256=sha))
    return Manifest(tuple(cases), folder)


def epoch(manifest: Manifest, side: int, batch: int, workers: int) -> tuple[float, float]:
    """Medians of the seconds of a step and of those waited before it."""
    torch.manual_seed(0)
    learner = Spark(Config(), build_encoder(EncoderConfig(), 1))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-4)
    dataset = CropDataset(manifest, IntensityNormalization(), (side, side, side), augment_config=AugmentConfig())
    crops = iter(
        feed.train_loader(
            dataset, TrainConfig(epochs=1, steps_per_epoch=STEPS + WARM, batch_size=batch, num_workers=workers)
        )
    )
    steps, waits = [], []
    for _ in range(STEPS + WARM):
        start = time.perf_counter()
        batch_of_crops = next(crops)
        waits.append(time.perf_counter() - start)
        start = time.perf_counter()
        optimiser.zero_grad()
        learner.step(batch_of_crops).loss.backward()
        optimiser.step()
        steps.append(time.perf_counter() - start)
    return median(steps[WARM:]), median(waits[WARM:])


if __name__ == "__main__":
    main()
