"""Cuts random crops from stored volumes."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.manifest import Case, Manifest
from medssl.data.normalization import IntensityNormalization
from medssl.data.pools.keyed_permutation import permute_index
from medssl.data.pools.pending_crops import CropSource, PendingItem
from medssl.data.pools.spread_batches import SpreadBatches
from medssl.data.selection.label_slices import find_known_slices, find_slice_axis
from medssl.data.store import IntTriple, Store
from medssl.data.transforms.augmentation import AugmentConfig, PendingView, draw_view
from medssl.data.transforms.spatial import ImageAndLabel, ReadBox
from medssl.errors import BadInput


class CropDataset(CropSource):
    """Random crops of the cases of a manifest; item n is a pure function of the seed and n.

    Every `len(dataset)` items visit each case once, in a new order each time; n may exceed the length. A crop is
    placed around a random voxel of the body, so that it is not mostly air, or, for the foreground fraction of labelled
    crops, around a voxel of a class. Classes present in the case are equally likely, whatever their size.

    Args:
        manifest: Cases with the same number of channels.
        normalization: Maps stored voxels to [0, 1].
        patch_size: Voxels of a crop along i, j, k.
        num_views: Crops of one volume in each item.
        min_overlap: Fraction of its voxels that each further view shares with the first at least; None places all
            views independently.
        labelled: Whether items include labels.
        foreground_fraction: Fraction of labelled crops that are placed around a voxel of a class.
        seed: Seed of all random choices.
        augment_config: Augmentation of each view; None for none.
        classes: Classes of the store, used for targets and for `annotated`; None takes labels as stored.
        by_component: Whether connected components, instead of classes, are equally likely. Otherwise a lesion of a
            third the diameter is drawn 27 times less often.
        num_label_slices: Number of slices of each volume whose label is used, see `find_known_slices`; None is all.
        spread: Chooses the cases of a batch from different groups; None for an order without groups.
    """

    def __init__(
        self,
        manifest: Manifest,
        normalization: IntensityNormalization,
        patch_size: IntTriple,
        *,
        num_views: int = 1,
        min_overlap: float | None = None,
        labelled: bool = False,
        foreground_fraction: float = 0.5,
        seed: int = 0,
        augment_config: AugmentConfig | None = None,
        classes: Classes | None = None,
        by_component: bool = False,
        num_label_slices: int | None = None,
        spread: SpreadBatches | None = None,
    ) -> None:
        if not manifest.cases:
            raise BadInput(f"{manifest.folder}: no cases to cut crops from; check that the split is not empty")
        unlabelled = [n for n, label in enumerate(manifest.column("label")) if labelled and not label]
        if unlabelled:
            names = ", ".join(manifest.cases[n].id for n in unlabelled[:5])
            raise BadInput(f"{manifest.folder}: no label for {names}; select cases with `Manifest.with_labels`")
        channels = set(manifest.column("channels"))
        if len(channels) > 1:
            raise BadInput(
                f"{manifest.folder}: cases with {sorted(channels)} channels; train on cases with one number of channels"
            )
        self.store = Store(manifest)
        self.normalization, self.patch_size, self.augment_config = normalization, patch_size, augment_config
        self.num_views, self.min_overlap, self.seed = num_views, min_overlap, seed
        self.labelled, self.foreground_fraction = labelled, foreground_fraction
        self.classes, self.by_component, self.num_label_slices = classes, by_component, num_label_slices
        self.spread = spread

    def __len__(self) -> int:
        """Returns the number of cases; items beyond it visit the cases again."""
        return len(self.store.manifest.cases)

    def draw_item(self, number: int) -> PendingItem:
        """Draws all random numbers of an item and reads its volume."""
        rng = np.random.default_rng((self.seed, number))
        index = self._case_index(number)
        case = self.store.manifest.cases[index]
        corners = self._draw_corners(case, rng)
        return PendingItem(
            views=self._draw_views(case, corners, rng),
            corner=torch.tensor(corners),
            size=torch.tensor(self.store.image(case).shape),
            affine=torch.from_numpy(np.stack([self._crop_affine(case, c) for c in corners])),
            volume=index,
            annotated=(
                torch.from_numpy(self.classes.annotation_mask(case.id)) if self.labelled and self.classes else None
            ),
        )

    def _case_index(self, number: int) -> int:
        """Returns the case of an item: each round visits every case once, in an order of its own."""
        if self.spread:
            return self.spread.find_case(number, self.seed)
        round_, position = divmod(number, len(self))
        return permute_index(position, len(self), self.seed, round_)

    def _draw_corners(self, case: Case, rng: np.random.Generator) -> list[IntTriple]:
        """Draws the first voxel of every view of one volume."""
        corners = [self._draw_corner(case, rng)]
        while len(corners) < self.num_views:
            corners.append(
                self._draw_corner(case, rng)
                if self.min_overlap is None
                else self._draw_overlapping_corner(case, corners[0], rng)
            )
        return corners

    def _draw_corner(self, case: Case, rng: np.random.Generator) -> IntTriple:
        """Draws a crop with a body or foreground voxel in its middle half."""
        points = self.store.image(case).sample_points["body"]
        candidates = self._candidate_voxels(case) if self.labelled else []
        if candidates and rng.random() < self.foreground_fraction:
            points = candidates[rng.integers(len(candidates))]
        shape = np.array(self.store.image(case).shape)
        point = points[rng.integers(len(points))] if len(points) else rng.integers(shape)
        return self._clamp_corner(case, point - rng.uniform(0.25, 0.75, 3) * self.patch_size)

    def _candidate_voxels(self, case: Case) -> list[Int[np.ndarray, "n 3"]]:
        """Returns sampled voxels of every class of a case, or of every connected component."""
        label = self.store.label(case)
        if self.by_component:
            groups = label.components
        else:
            groups = [(int(value), points) for value, points in sorted(label.sample_points.items())]
        candidates = [points for value, points in groups if self.classes is None or value in self.classes.names]
        if self.num_label_slices is None:
            return candidates
        axis, is_known = self._find_known_slices(case)
        known_points = [points[is_known[points[:, axis]]] for points in candidates]
        return [points for points in known_points if len(points)]

    def _find_known_slices(self, case: Case) -> tuple[int, Bool[np.ndarray, "s"]]:
        """Returns the axis across the slices of a case, and which of them are known."""
        label, axis = self.store.label(case), find_slice_axis(case.spacing_mm)
        points = [p for n, p in label.sample_points.items() if self.classes is None or int(n) in self.classes.names]
        return axis, find_known_slices(points, axis, label.shape[axis], self.num_label_slices or label.shape[axis])

    def _draw_overlapping_corner(self, case: Case, first: IntTriple, rng: np.random.Generator) -> IntTriple:
        """Draws a crop that shares at least the fraction `min_overlap` of its voxels with the first one."""
        reach = (1 - (self.min_overlap or 0) ** (1 / 3)) * np.array(self.patch_size)
        return self._clamp_corner(case, np.array(first) + np.trunc(rng.uniform(-reach, reach)))

    def _clamp_corner(self, case: Case, corner: Float[np.ndarray, "3"]) -> IntTriple:
        """Moves a crop inside the volume along each axis, or centres the volume in a crop that is larger."""
        room = np.array(self.store.image(case).shape) - self.patch_size
        i, j, k = np.where(room < 0, room // 2, np.clip(np.floor(corner), 0, np.maximum(room, 0))).astype(int).tolist()
        return i, j, k

    def _draw_views(self, case: Case, corners: list[IntTriple], rng: np.random.Generator) -> tuple[PendingView, ...]:
        """Reads the views of one volume, each with changes of its own."""
        if self.augment_config is None:
            return tuple(PendingView(*self._read_box(case, corner, self.patch_size)) for corner in corners)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        i, j, k = np.linalg.norm(self.store.image(case).affine[:3, :3], axis=0).tolist()

        def read_from(corner: IntTriple) -> ReadBox:
            return lambda shift, size: self._read_box(case, _add(corner, shift), size)

        return tuple(
            draw_view(self.augment_config, read_from(corner), self.patch_size, (i, j, k), generator)
            for corner in corners
        )

    def _read_box(self, case: Case, corner: IntTriple, size: IntTriple) -> ImageAndLabel:
        """Reads a box of a volume as network input and, if labelled, its targets."""
        image = self.store.image(case)
        x = torch.from_numpy(self.normalization.apply(image.crop(corner, size), image.unit, image.deciles))
        if not self.labelled:
            return x, None
        label = self.store.label(case).crop(corner, size)
        target = label.astype(np.int64) if self.classes is None else self.classes.to_target(label)
        if self.num_label_slices is not None:
            axis, is_known = self._find_known_slices(case)
            places = np.arange(size[axis]) + corner[axis]
            is_inside = (places >= 0) & (places < len(is_known))
            is_unknown = is_inside & ~is_known[places.clip(0, len(is_known) - 1)]
            np.moveaxis(target, axis, 0)[is_unknown] = IGNORE_INDEX
        return x, torch.from_numpy(target)

    def _crop_affine(self, case: Case, corner: IntTriple) -> Float[np.ndarray, "4 4"]:
        shift = np.eye(4)
        shift[:3, 3] = corner
        return (self.store.image(case).affine @ shift).astype(np.float32)


def _add(a: IntTriple, b: IntTriple) -> IntTriple:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
