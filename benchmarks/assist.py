"""Assisted correction: strokes that a simulated reader needs with proposals and without, and what signed cases teach.

python -m benchmarks.assist [DATA]. The reader makes the axial slice with the largest error right, which counts as one
stroke, keeps the proposal for the other slices, and stops at the Dice. The mask is empty at first, or as a model could
have predicted it: the truth, bent by a smooth field of about 4 mm. Features are intensities: there is no run.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from medssl.io import nifti
from medssl.review.assist.drawn_slices import DrawnSlices
from medssl.review.assist.label_context import LabelContext
from medssl.review.assist.proposal import AssistImage, apply_proposal, learn_from_mask, propose_mask
from medssl.review.assist.scene import Clicks
from medssl.volume import Spacing, Volume

DATA = "../shared/data"
TARGETS, MAX_STROKES, CASES = (0.85, 0.90, 0.95), 30, 10
MIN_VOXELS = 100
BEND_MM, BEND_WIDTH_MM = 4.0, 8.0  # standard deviation of the field that bends a mask, and its smoothness
Mask = Bool[np.ndarray, "i j k"]


@dataclass
class Reader:
    """A simulated reader.

    Args:
        has_proposals: Whether proposals follow the strokes.
        learns: Whether signed cases teach the proposals.
        seconds: The CPU time of each proposal.
    """

    has_proposals: bool = True
    learns: bool = False
    seconds: list[float] = field(default_factory=list)

    def read_cases(self, scenes: list[tuple[Volume, Mask]], is_empty: bool) -> np.ndarray:
        """Returns the strokes of each case to each Dice."""
        context: LabelContext | None = None
        counts = []
        for number, (volume, truth) in enumerate(scenes):
            image = AssistImage.from_volume(volume)
            start = np.zeros_like(truth) if is_empty else bend_mask(truth, volume.spacing_mm(), number)
            counts.append(self._count_strokes(image, truth, start, context))
            if self.learns:
                lesson = learn_from_mask(image, truth)
                context = context + lesson if context else lesson
        return np.array(counts)

    def _count_strokes(self, image: AssistImage, truth: Mask, mask: Mask, context: LabelContext | None) -> list[int]:
        drawn: set[int] = set()
        reached = dict.fromkeys(TARGETS, MAX_STROKES)
        for number in range(1, MAX_STROKES + 1):
            k = int((mask ^ truth).sum((0, 1)).argmax())
            drawn.add(k)
            mask = mask.copy()
            mask[:, :, k] = truth[:, :, k]
            if self.has_proposals:
                began = time.process_time()
                slices = DrawnSlices(along_k=tuple(sorted(drawn)))
                mask = apply_proposal(mask, propose_mask(image, mask, Clicks.none(), context, slices))
                self.seconds.append(time.process_time() - began)
            dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
            reached = {target: min(count, number) if dice >= target else count for target, count in reached.items()}
            if dice >= max(TARGETS):
                break
        return list(reached.values())


def main(data: str = DATA) -> None:
    """Prints the table of all sets, the curve over the cases and the time of a proposal."""
    readers = {"alone": Reader(has_proposals=False), "with proposals": Reader(), "learning": Reader(learns=True)}
    sets = {name: list(islice(cases, CASES)) for name, cases in list_sets(Path(data)).items()}
    print(
        f"{CASES} cases a set; {MAX_STROKES} strokes at most. Means of all cases; of the learning reader, of the second"
    )
    print("half.\n")
    heads = [f"{name}: to {target:.2f}" for name in readers for target in TARGETS]
    print(f"| mask at first | structure | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}")
    curves = []
    for words, is_empty in (("empty", True), ("predicted", False)):
        for name, scenes in sets.items():
            counts = {who: reader.read_cases(scenes, is_empty) for who, reader in readers.items()}
            means = [mean for who, c in counts.items() for mean in c[len(c) // 2 if who == "learning" else 0 :].mean(0)]
            print(f"| {words} | {name} | {' | '.join(f'{mean:.1f}' for mean in means)} |", flush=True)
            curves += [f"| {words} | {name} | {who} | {' | '.join(map(str, c[:, 0]))} |" for who, c in counts.items()]
    print(f"\nStrokes to {TARGETS[0]}, case by case, in the order of signing:\n")
    print(f"| mask at first | structure | reader | {' | '.join(map(str, range(1, CASES + 1)))} |")
    print("|---" * (CASES + 3) + "|\n" + "\n".join(curves))
    print("\nCPU seconds of a proposal:\n\n| reader | median | p95 |\n|---|---|---|")
    for name, reader in list(readers.items())[1:]:
        print(f"| {name} | {np.median(reader.seconds):.2f} | {np.percentile(reader.seconds, 95):.2f} |")
    print(f"| a box of 96 voxels a side | {time_largest_box():.2f} | |")


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


def bend_mask(mask: Mask, spacing_mm: Spacing, seed: int) -> Mask:
    """Returns a mask whose voxels come from elsewhere, as a smooth random field says."""
    generator = np.random.default_rng(seed)
    widths = [BEND_WIDTH_MM / mm for mm in spacing_mm]
    fields = [ndimage.gaussian_filter(generator.normal(size=mask.shape), widths) for _ in range(3)]
    moves = [values / values.std() * BEND_MM / mm for values, mm in zip(fields, spacing_mm, strict=True)]
    return ndimage.map_coordinates(mask.astype(np.float32), np.indices(mask.shape) + np.array(moves), order=1) > 0.5


def time_largest_box() -> float:
    """Returns the CPU seconds of a proposal in the largest box, for a finding that fills most of it."""
    side = 110
    truth = ((np.indices((side,) * 3) - side // 2) ** 2).sum(0) < 40**2
    noise = np.random.default_rng(0).normal(0, 20, truth.shape)
    image = AssistImage.from_volume(Volume((60 * truth + noise).astype(np.float32), np.eye(4), "HU"))
    slices = DrawnSlices(along_k=(side // 2 - 20, side // 2, side // 2 + 20))
    context = learn_from_mask(image, truth)
    start = time.process_time()
    propose_mask(image, truth, Clicks.none(), context, slices)
    return time.process_time() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
