"""What augmentation costs: each change of a 64^3 crop alone, and the default mixture compared with a training step."""

import time
from collections.abc import Callable

import torch

from benchmarks.spark import crops
from medssl.data.transforms.augmentation import AugmentConfig, augment
from medssl.nn.encoder import EncoderConfig, build_encoder
from medssl.tasks.segment import Config, SegmentTask

SIDE, CROPS = 64, 30
OFF = {"rotate_deg": 0, "scale": 0, "elastic": 0, "gamma": 0, "contrast": 0, "brightness": 0, "noise": 0, "zoom": 1}
STILL = AugmentConfig(probability=0, flip=(False, False, False))
ALONE = {"turn and scale": ("rotate_deg", "scale"), "bend": ("elastic",)}


def main() -> None:
    """Prints CPU milliseconds on one thread."""
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    x = torch.rand(1, SIDE, SIDE, SIDE, generator=source)
    label = torch.randint(0, 4, (SIDE,) * 3, generator=source)
    scan, scan_label = x.repeat(1, 3, 3, 3), label.repeat(3, 3, 3)

    def cut(shift: tuple[int, int, int], size: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        box = tuple(slice(SIDE + a, SIDE + a + n) for a, n in zip(shift, size, strict=True))
        return scan[(slice(None), *box)], scan_label[box]

    def once(how: AugmentConfig) -> float:
        return _ms(lambda: augment(how, cut, (SIDE,) * 3, (1.0, 1.0, 1.0), source))

    defaults = AugmentConfig().model_dump()
    rows = {"nothing": STILL}
    for name in ("turn and scale", "bend", "both in one resampling"):
        wanted = ALONE.get(name, ("rotate_deg", "scale", "elastic"))
        rows[name] = AugmentConfig(
            **OFF | {key: defaults[key] for key in wanted}, probability=1, blur=0, flip=(False,) * 3
        )
    rows |= {"everything": AugmentConfig(probability=1), "the default mixture": AugmentConfig()}
    times = {name: once(how) for name, how in rows.items()}
    print(f"mean of {CROPS} crops of {SIDE}^3 with labels, CPU time on one thread\n\n| change | ms |\n|---|---|")
    for name, ms in times.items():
        print(f"| {name} | {ms:.1f} |")
    step = _step(x, label)
    share = times["the default mixture"] / step
    print(
        f"| a training step on one such crop (default network) | {step:.0f} |\n\nThe mixture takes {share:.1%} of it."
    )


def _step(x: torch.Tensor, label: torch.Tensor) -> float:
    task = SegmentTask(Config(), build_encoder(EncoderConfig(), 1), 4, (SIDE,) * 3)
    batch = crops(x[None, None], label[None, None])
    return _ms(lambda: task.step(batch).loss.backward(), 3)


def _ms(work: Callable[[], object], times: int = CROPS) -> float:
    work()
    begin = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin) / times * 1e3


if __name__ == "__main__":
    main()
