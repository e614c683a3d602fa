"""Assisted correction: clicks that a simulated reader needs, against brush strokes, with and without the learning loop.

python -m benchmarks.assist [DATA]. The reader starts from an empty mask, clicks at the deepest voxel of the largest
error, and stops at the Dice. A brush stroke is generous: it fills one region of one axial slice without a fault, and
the largest region comes first. Features are intensities: there is no run.
"""

import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from medssl.io import nifti
from medssl.review.assist.label_context import LabelContext
from medssl.review.assist.proposal import AssistImage, apply_proposal, learn_from_mask, propose_mask
from medssl.review.assist.scene import Clicks
from medssl.volume import NEIGHBOURS_26, Volume

DATA = "../shared/data"
TARGETS, MAX_CLICKS, CASES = (0.85, 0.90), 15, 10
MIN_VOXELS = 100
Mask = Bool[np.ndarray, "i j k"]


def main(data: str = DATA) -> None:
    """Prints the table of all sets, the curve over the cases and the time of a proposal."""
    rows, curves, seconds = [], [], list[float]()
    for name, cases in list_sets(Path(data)).items():
        scenes = list(islice(cases, CASES))
        strokes = np.array([[count_strokes(mask, target) for target in TARGETS] for _, mask in scenes])
        clicks = [simulate_cases(scenes, learns, seconds) for learns in (False, True)]
        means = [*strokes.mean(0), *clicks[0].mean(0), *clicks[1][len(scenes) // 2 :].mean(0)]
        rows.append(f"| {name} | {' | '.join(f'{value:.1f}' for value in means)} |")
        curves += [
            f"| {name}, {words} | {' | '.join(map(str, counts[:, 0]))} |"
            for words, counts in zip(("alone", "learning"), clicks, strict=True)
        ]
    print(f"{CASES} cases a set; a reader who does not reach the Dice in {MAX_CLICKS} clicks counts as {MAX_CLICKS}.\n")
    print(
        "| structure | strokes to 0.85 | 0.90 | clicks to 0.85 | 0.90 | clicks to 0.85, second half, learning | 0.90 |"
    )
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\nClicks to {TARGETS[0]}, case by case, in the order of signing:\n")
    print(f"| structure | {' | '.join(map(str, range(1, CASES + 1)))} |\n{'|---' * (CASES + 1)}|")
    print("\n".join(curves))
    print(f"\nCPU seconds of a proposal: median {np.median(seconds):.2f}, p95 {np.percentile(seconds, 95):.2f};")
    print(f"in a box of 96 voxels a side {time_largest_box():.2f}.")


def list_sets(data: Path) -> dict[str, Iterator[tuple[Volume, Mask]]]:
    """Returns an image and a structure of each case; of a nodule set, the largest nodule."""
    organs, nodules = data / "headneck_ct", data / "nodules"
    return {
        "hippocampus (MR)": read_cases(data / "hippocampus" / "imagesTr", "labelsTr", "a.u.", 0, step=2),
        "left parotid (CT)": read_cases(organs / "imagesTr", "labelsTr", "HU", 3),
        "mandible (CT)": read_cases(organs / "imagesTr", "labelsTr", "HU", 5),
        "lung nodule (CT)": read_cases(nodules / "images", "masks", "HU", -1),
    }


def read_cases(folder: Path, labels: str, unit: str, label: int, step: int = 1) -> Iterator[tuple[Volume, Mask]]:
    """Yields images with a mask: of a label, of all labels (0), or of the largest label (-1)."""
    for path in sorted(folder.glob("*.nii.gz"))[::step]:  # two sides of one patient follow each other
        values = nifti.read(folder.parent / labels / path.name, label=True).reorient("RAS").voxels
        largest = int(np.bincount(values.ravel())[1:].argmax()) + 1 if values.any() else 1
        mask = values > 0 if label == 0 else values == (largest if label < 0 else label)
        if mask.sum() >= MIN_VOXELS:
            volume = nifti.read(path).reorient("RAS")
            yield Volume(volume.voxels, volume.affine, "HU" if unit == "HU" else "a.u."), mask


def simulate_cases(scenes: list[tuple[Volume, Mask]], learns: bool, seconds: list[float]) -> np.ndarray:
    """Returns the clicks of each case to each Dice, with or without what the cases before it teach."""
    context: LabelContext | None = None
    counts = []
    for volume, truth in scenes:
        image = AssistImage.from_volume(volume)
        counts.append(count_clicks(image, truth, context, seconds))
        if learns:
            lesson = learn_from_mask(image, truth)
            context = context + lesson if context else lesson
    return np.array(counts)


def count_clicks(image: AssistImage, truth: Mask, context: LabelContext | None, seconds: list[float]) -> list[int]:
    """Returns the clicks of a simulated reader to each Dice."""
    mask, clicks = np.zeros_like(truth), Clicks.none()
    reached = dict.fromkeys(TARGETS, MAX_CLICKS)
    for number in range(1, MAX_CLICKS + 1):
        clicks = add_click(clicks, mask, truth, image.volume.spacing_mm())
        start = time.process_time()
        mask = apply_proposal(mask, propose_mask(image, mask, clicks, context))
        seconds.append(time.process_time() - start)
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        reached = {target: min(count, number) if dice >= target else count for target, count in reached.items()}
        if dice >= max(TARGETS):
            break
    return list(reached.values())


def add_click(clicks: Clicks, mask: Mask, truth: Mask, spacing_mm: tuple[float, float, float]) -> Clicks:
    """Returns the clicks and one more, at the deepest voxel of the largest connected error."""
    errors = []
    for error in (truth & ~mask, mask & ~truth):
        numbers, _ = ndimage.label(error, NEIGHBOURS_26)
        sizes = np.bincount(numbers.ravel(), minlength=2)[1:]
        errors.append((sizes.max(), numbers == sizes.argmax() + 1))
    is_missing = errors[0][0] >= errors[1][0]
    depth = ndimage.distance_transform_edt(np.pad(errors[0 if is_missing else 1][1], 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    point = np.array([np.unravel_index(int(depth.argmax()), depth.shape)], np.int64)
    if is_missing:
        return Clicks(np.concatenate([clicks.inside, point]), clicks.outside)
    return Clicks(clicks.inside, np.concatenate([clicks.outside, point]))


def count_strokes(truth: Mask, target: float) -> int:
    """Returns the brush strokes to a Dice: each fills a connected region of a slice, the largest first."""
    areas: list[int] = []
    for k in range(truth.shape[2]):
        numbers, _ = ndimage.label(truth[:, :, k])
        areas += np.bincount(numbers.ravel())[1:].tolist()
    filled = np.cumsum(sorted(areas, reverse=True))
    return int(np.argmax(2 * filled / (filled + truth.sum()) >= target)) + 1


def time_largest_box() -> float:
    """Returns the CPU seconds of a proposal in the largest box, for a finding that fills most of it."""
    side = 110
    truth = ((np.indices((side,) * 3) - side // 2) ** 2).sum(0) < 40**2
    noise = np.random.default_rng(0).normal(0, 20, truth.shape)
    image = AssistImage.from_volume(Volume((60 * truth + noise).astype(np.float32), np.eye(4), "HU"))
    clicks = Clicks(np.array([[side // 2] * 3]), np.array([[side // 2, side // 2, 5]]))
    start = time.process_time()
    propose_mask(image, truth, clicks)
    return time.process_time() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
