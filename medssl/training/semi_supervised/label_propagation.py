"""Label propagation: transfers the labels of a few volumes to all other volumes of an atlas.

Multi-atlas segmentation after Iglesias and Sabuncu, "Multi-atlas segmentation of biomedical images: a survey" (2015),
https://doi.org/10.1016/j.media.2015.06.012: the labelled volumes vote, and the mean decides. Training a network on such
labels together with annotated ones is from Xu and Niethammer, "DeepAtlas: joint semi-supervised learning of image
registration and segmentation" (MICCAI 2019), https://arxiv.org/abs/1904.08465. Deviation: the registration is not
learnt, and goes over one atlas, so that each scan is registered once, whichever volumes are labelled.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int
from scipy import ndimage

from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.registration.atlas import Atlas
from medssl.data.registration.grids import grid_coordinates, interpolate, resample_deformation, smoothed_mean, splat
from medssl.data.relabel import relabel
from medssl.data.store import Store
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput
from medssl.files import atomic_file
from medssl.metrics.overlap import dice
from medssl.render.figures import encode_png, planes_through

VoteCounts = Float64[np.ndarray, "2 n i j k"]  # for each class: voxels of that class, voxels annotated for that class
VoteFractions = Float32[np.ndarray, "n i j k"]
NUM_PREVIEWS = 3  # cases
NUM_COMPARED = 16  # unlabelled scans that labelled volumes are compared with
MIN_SIMILARITY = 0.5  # correlation around the structures, below which labels of one volume are not trusted
SIMILARITY_MARGIN = 3  # voxels around the structures
MIN_ANNOTATED = 0.05  # annotated fraction of the votes at a voxel of the atlas below which the voxel is ignored


@dataclass(frozen=True)
class PropagatedLabels:
    """A store of the unlabelled cases with their propagated labels.

    Attributes:
        manifest: The cases with their labels.
        classes: Classes of the labels.
        agreement: Mean Dice, over labelled volumes and classes, of the annotated label and the label that the other
            labelled volumes propagate to the volume; None for a single labelled volume.
    """

    manifest: Manifest
    classes: Classes
    agreement: float | None

    def write_previews(self, folder: Path) -> None:
        """Writes an image of each of the first cases: three planes through the centre of the labelled voxels."""
        store = Store(self.manifest)
        for case in self.manifest.cases[:NUM_PREVIEWS]:
            image, label = store.image(case).volume(), store.label(case).volume()
            first_channel = replace(image, voxels=image.voxels.reshape(-1, *image.shape)[0].astype(np.float32))
            mask = np.isin(label.voxels, list(self.classes.names))
            centre = np.argwhere(mask).mean(0) if mask.any() else np.array(image.shape) / 2
            overlay = replace(label, voxels=label.voxels * mask)
            preview = planes_through(first_channel, tuple(image.to_mm(centre)), overlay)
            with atomic_file(folder / f"propagated_to_{case.id}.png") as part:
                part.write_bytes(encode_png(preview))


class LabelPropagation:
    """The votes of the labelled volumes for the classes of each voxel of an atlas.

    A volume votes only on the classes that are annotated in it. `votes` counts the voxels that are warped to each voxel
    of the atlas: `votes[0]` voxels of each class, `votes[1]` voxels of volumes in which the class is annotated.

    Args:
        folder: Folder that `medssl atlas` wrote.
        labelled: Labelled volumes; all must be in the atlas.
        unlabelled: Volumes to propagate labels to; those that are not in the atlas are left out.

    Raises:
        BadInput: The folder is no atlas, or the volumes are not in it.
    """

    def __init__(self, folder: Path, labelled: Manifest, unlabelled: Manifest) -> None:
        self.atlas, self.labelled, self.store = Atlas(folder), labelled, Store(labelled)
        self.classes = Classes.from_metadata(StoreMetadata.read(labelled.folder))
        if outside := [case.id for case in labelled.cases if not self.atlas.contains(case)]:
            raise BadInput(
                f"{folder}: the labelled case {outside[0]} is not in this atlas ({len(outside)} such cases);"
                f" build an atlas of {labelled.folder} with --split train"
            )
        self.unlabelled = replace(
            unlabelled, cases=tuple(case for case in unlabelled.cases if self.atlas.contains(case))
        )
        if not self.unlabelled.cases:
            raise BadInput(
                f"{folder}: no unlabelled case of {unlabelled.folder} is in this atlas; build an atlas of that store"
            )
        self.votes: VoteCounts = sum((self._warp_label(case) for case in labelled.cases), start=np.zeros(()))

    def write(self, out: Path) -> PropagatedLabels:
        """Writes a store of the unlabelled cases with propagated labels to a folder."""
        ignore = self.classes.count if self.classes.ignore_label is None else self.classes.ignore_label
        names = {**self.classes.names, ignore: "ignore"}
        fractions = vote_fractions(self.votes)
        targets = ((case, self.label_case(case, fractions)) for case in self.unlabelled.cases)
        labels = ((case, np.where(target == IGNORE_INDEX, ignore, target)) for case, target in targets)
        annotated = np.any([self.classes.annotation_mask(case.id) for case in self.labelled.cases], axis=0)
        annotated_classes = [n for n in self.classes.names if annotated[n]]
        manifest = relabel(self.unlabelled, names, labels, out, annotated_classes=annotated_classes)
        return PropagatedLabels(manifest, Classes.from_metadata(StoreMetadata.read(out)), self.measure_agreement())

    def measure_agreement(self) -> float | None:
        """Returns the mean Dice of annotated labels and labels propagated from the other labelled volumes."""
        scores = [score for case in self.labelled.cases for score in self._score_agreement(case)]
        return float(np.mean(scores)) if scores else None

    def measure_similarity(self) -> float:
        """Returns the mean correlation of other scans with the labelled volumes, around the structures.

        The labelled volumes are warped onto each scan like their labels. Voxels within `SIMILARITY_MARGIN` of a
        propagated label count, since scans that are alike as a whole may still differ where a small structure lies.
        """
        images = [self._warp_image(case) for case in self.labelled.cases]
        mean = smoothed_mean(*np.sum(images, axis=0)).astype(np.float32)
        fractions = vote_fractions(self.votes)
        correlations = []
        for case in self.unlabelled.cases[:NUM_COMPARED]:
            near = ndimage.binary_dilation(self.label_case(case, fractions) > 0, iterations=SIMILARITY_MARGIN)
            coordinates = resample_deformation(self.atlas.load_deformation(case), near.shape)
            pair = self._read_image(case)[near], interpolate(mean, coordinates)[near]
            is_flat = not near.any() or min(float(np.std(values)) for values in pair) < 1e-6
            correlations.append(0.0 if is_flat else float(np.corrcoef(*pair)[0, 1]))
        return float(np.mean(correlations))

    def label_case(self, case: Case, fractions: VoteFractions) -> Int[np.ndarray, "p q r"]:
        """Returns the label that votes give to a case, on its own grid, with IGNORE_INDEX where no volume votes."""
        coordinates = resample_deformation(self.atlas.load_deformation(case), self.store.image(case).shape)
        best = interpolate(1 - np.sum(fractions[1:], axis=0), coordinates)  # the fraction of background
        label = np.zeros(best.shape, np.int64)
        for number, fraction in enumerate(fractions[1:], 1):
            value = interpolate(fraction, coordinates)
            label[value > best] = number
            best = np.maximum(best, value)
        label[interpolate(fractions[0], coordinates) <= MIN_ANNOTATED] = IGNORE_INDEX
        return label

    def _warp_label(self, case: Case) -> VoteCounts:
        """Returns the votes of one volume: how many of its voxels of each class are warped to each atlas voxel."""
        deformation, target = self.atlas.load_deformation(case), self._read_target(case)
        grid = grid_coordinates(deformation.shape[1:], target.shape)
        of_class = [interpolate((target == n).astype(np.float32), grid) for n in range(self.classes.count)]
        labelled = interpolate((target != IGNORE_INDEX).astype(np.float32), grid)
        annotated = [labelled * is_annotated for is_annotated in self.classes.annotation_mask(case.id)]
        return np.stack([splat(np.stack(images), deformation) for images in (of_class, annotated)])

    def _warp_image(self, case: Case) -> Float64[np.ndarray, "2 i j k"]:
        """Returns the sum of the intensities of a scan that are warped to each atlas voxel, and their number."""
        deformation, image = self.atlas.load_deformation(case), self._read_image(case)
        on_grid = interpolate(image, grid_coordinates(deformation.shape[1:], image.shape))
        return splat(np.stack([on_grid, np.ones_like(on_grid)]), deformation)

    def _read_image(self, case: Case) -> Float32[np.ndarray, "i j k"]:
        """Returns the first channel of a scan as network input."""
        stored = self.store.image(case)
        x = stored.network_input(StoreMetadata.read(self.labelled.folder).normalization)
        return x.reshape(-1, *stored.shape)[0]

    def _read_target(self, case: Case) -> Int[np.ndarray, "i j k"]:
        return self.classes.to_target(self.store.label(case).volume().voxels)

    def _score_agreement(self, case: Case) -> list[float]:
        """Returns the Dice of each class that the label of a case contains and that other volumes vote on."""
        other_votes = self.votes - self._warp_label(case)
        target, propagated = self._read_target(case), self.label_case(case, vote_fractions(other_votes))
        scored = [n for n in self.classes.names if (target == n).any() and other_votes[1, n].max() > MIN_ANNOTATED]
        return [dice((propagated == n) & (target != IGNORE_INDEX), target == n) for n in scored]


def vote_fractions(votes: VoteCounts) -> VoteFractions:
    """Returns for each atlas voxel the annotated fraction (index 0) and the fraction of votes for each class."""
    of_class, annotated = votes
    pairs = zip((annotated[0], *of_class[1:]), annotated, strict=True)
    return np.stack([smoothed_mean(total, count) for total, count in pairs]).astype(np.float32)
