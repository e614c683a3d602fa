"""Synthesis: label maps are painted with random contrasts, and a U-Net learns to segment the map again.

Billot et al., "SynthSeg: segmentation of brain MRI scans of any contrast and resolution without retraining" (2023),
https://doi.org/10.1016/j.media.2023.102789; for pretraining: Dey et al., "Learning general-purpose biomedical volume
representations using randomized synthesis" (anatomix, 2024), https://arxiv.org/abs/2411.02372; for registration:
Hoffmann et al., "SynthMorph: learning contrast-invariant registration without acquired images" (2022),
https://arxiv.org/abs/2004.10282. Deviations: every region of a map is divided into parcels by the intensities of its
own scan, as anatomy without labels has contrasts too; half of the crops stay near the contrast of the scan; maps are
deformed by `augment` of the pretraining.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from medssl.data.crops import Crops, median_spacing_mm
from medssl.data.transforms.augmentation import AugmentConfig, augment
from medssl.nn.collectives import all_gather_rows, split_generator
from medssl.nn.decoder import UNetDecoder, build_deep_heads
from medssl.nn.encoder import Encoder
from medssl.nn.losses import deep_supervision, dice_ce
from medssl.nn.masks import SeededGenerators
from medssl.nn.self_supervision.parcels import cluster_intensities
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

SUPERVISED_LEVELS = 3  # of the decoder, from the finest
BIAS_POINTS = 4  # control points of a bias field along each axis
MEAN_SHIFT, STD_SCALE = 0.05, (0.5, 1.5)  # changes of a parcel that is painted near its own contrast

ParcelMap = Int[Tensor, "i j k"]  # numbers from 0
Image = Float[Tensor, "c i j k"]


class Config(Settings):
    """Settings of the painting."""

    name: Literal["synthetic"] = Field("synthetic", description="name of the objective")
    num_classes: PositiveInt | None = Field(
        None, description="classes to segment, with background; null: those of `labels`, or without labels the parcels"
    )
    num_parcels: int = Field(6, ge=2, description="parcels of similar intensity that the background is divided into")
    num_label_parcels: int = Field(2, ge=1, description="parcels of similar intensity in each labelled region")
    real_contrast_fraction: float = Field(
        0.5, ge=0, le=1, description="fraction of the crops that are painted near the contrast of their own scan"
    )
    texture: float = Field(0.1, ge=0, description="largest standard deviation of the intensities within a parcel")
    bias: float = Field(0.3, ge=0, description="largest standard deviation of the logarithm of the bias field")
    appearance: AugmentConfig = Field(
        AugmentConfig(
            probability=0.7, flip=(False, False, False), rotate_deg=0, scale=0, elastic=0, noise=0.1, zoom=0.35
        ),
        description="blur, resolution, noise, contrast and gamma of the painted crops",
    )
    seed: int = Field(0, ge=0, description="seed of the contrasts")


class Synthetic(Objective):
    """Segments the map of crops that are painted with the contrasts of `Config`.

    Classes are those of the labels. Without labels they are the parcels of a crop, in the order of their intensities in
    the scan.
    """

    config: Config
    learns_from_labels = True
    min_spread_fraction = 0.1  # most differences of untrained embeddings are of contrast, which the features ignore

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.num_classes = config.num_classes or config.num_parcels
        self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels, linear=True)
        self.heads = build_deep_heads(encoder.channels, encoder.strides, self.num_classes, SUPERVISED_LEVELS)
        self.draws = SeededGenerators(config.seed)

    def step(self, crops: Crops) -> Step:
        """Computes Dice loss and cross-entropy of the map, at several resolutions."""
        painted, target = self.paint_batch(crops, median_spacing_mm(all_gather_rows(crops.affine)))
        maps = self.decoder(self.encoder(painted))
        logits = [head(decoded) for head, decoded in zip(self.heads, maps, strict=False)]
        annotated = crops.annotated_per_view() if crops.label is not None else None
        loss, finest = deep_supervision(logits, target, lambda a, b: dice_ce(a, b, annotated))
        is_right = (logits[0].detach().argmax(1) == target)[target >= 0]
        return Step(loss, {"finest": finest, "accuracy": is_right.float().mean()})

    @torch.no_grad()
    def paint_batch(
        self, crops: Crops, spacing_mm: tuple[float, float, float] | None = None
    ) -> tuple[Float[Tensor, "n c i j k"], Int[Tensor, "n i j k"]]:
        """Paints the map of each crop, on the CPU, with a voxel spacing; None takes that of the crops.

        Returns:
            The painted crops, and the class of each voxel, negative where unknown.
        """
        x = crops.x.flatten(0, 1)
        generators = split_generator(self.draws(), len(x))
        labels = [None] * len(x) if crops.label is None else list(crops.label.flatten(0, 1).cpu())
        painted, targets = [], []
        with torch.autocast(x.device.type, enabled=False):
            for scan, label, generator in zip(x.float().cpu(), labels, generators, strict=True):
                parcels = self.divide(scan, label)
                painted.append(self.paint(parcels, scan, spacing_mm or crops.spacing_mm(), generator))
                targets.append(parcels if label is None else torch.where(label >= self.num_classes, 0, label))
        return torch.stack(painted).to(x), torch.stack(targets).to(x.device)

    def divide(self, scan: Image, label: ParcelMap | None) -> ParcelMap:
        """Divides the background and each labelled region of a crop into parcels by the intensities of the scan.

        Returns:
            The parcel of each voxel, numbered from 0; a region without contrast is one parcel.
        """
        intensity = scan.mean(0)
        if label is None:
            return cluster_intensities(intensity.flatten(), self.config.num_parcels).view(intensity.shape)
        parcels, first = torch.zeros_like(label), 0
        for value in label.unique().tolist():
            inside = label == value
            count = self.config.num_parcels if value <= 0 else self.config.num_label_parcels
            parcels[inside] = first + cluster_intensities(intensity[inside], count)
            first = int(parcels[inside].max()) + 1
        return parcels

    def paint(
        self, parcels: ParcelMap, scan: Image, spacing_mm: tuple[float, float, float], generator: Generator
    ) -> Image:
        """Returns an image of the parcels with partial volumes, texture, a bias field and the changes of `appearance`.

        Args:
            parcels: Parcel of each voxel.
            scan: The scan of the crop, for contrasts near its own; a constant one has none.
            spacing_mm: Voxel spacing.
            generator: Source of all randomness.
        """
        mean, std = self._draw_contrast(parcels, scan, generator)
        size = (parcels.shape[0], parcels.shape[1], parcels.shape[2])
        image = mean[:, parcels]
        smooth = F.avg_pool3d(image[None], 3, 1, 1, count_include_pad=False)[0]
        image = torch.lerp(image, smooth, torch.rand((), generator=generator))
        image = image + std[:, parcels] * torch.randn(image.shape, generator=generator)
        points = torch.randn(1, 1, *[BIAS_POINTS] * 3, generator=generator)
        field = F.interpolate(points, size, mode="trilinear", align_corners=True)[0]
        image = image * (self.config.bias * torch.rand((), generator=generator) * field).exp()
        return augment(
            self.config.appearance, lambda corner, box: (image.clamp(0, 1), None), size, spacing_mm, generator
        )[0]

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder and the decoder."""
        return super().transferable() | {"decoder": self.decoder}

    @torch.no_grad()
    def preview(self, crops: Crops) -> dict[str, Image]:
        """Returns the first crop, its painted version, its map and the predicted map, both from 0 to 1."""
        painted, target = self.paint_batch(crops)
        predicted = self.heads[0](self.decoder(self.encoder(painted[:1]))[0]).argmax(1)
        maps = [classes.clamp(min=0) / max(1, self.num_classes - 1) for classes in (target[0], predicted[0])]
        shape = crops.x[0, 0].shape
        return {"input": crops.x[0, 0], "painted": painted[0]} | {
            name: classes.expand(shape).clone() for name, classes in zip(("map", "predicted"), maps, strict=True)
        }

    def _draw_contrast(
        self, parcels: ParcelMap, scan: Image, generator: Generator
    ) -> tuple[Float[Tensor, "c p"], Float[Tensor, "c p"]]:
        """Draws mean and standard deviation of each parcel in each channel: at random, or near those of the scan."""
        count = int(parcels.max()) + 1
        mean = torch.rand(len(scan), count, generator=generator)
        std = self.config.texture * torch.rand(len(scan), count, generator=generator)
        is_real = torch.rand((), generator=generator).item() < self.config.real_contrast_fraction
        if not is_real or scan.max() - scan.min() < 1e-6:
            return mean, std
        flat, sizes = parcels.flatten(), parcels.flatten().bincount(minlength=count)
        totals = torch.zeros(len(scan), count).index_add_(1, flat, scan.flatten(1))
        squares = torch.zeros(len(scan), count).index_add_(1, flat, scan.flatten(1).square())
        real_mean = totals / sizes
        real_std = (squares / sizes - real_mean.square()).clamp(min=0).sqrt()
        low, high = STD_SCALE
        shifts = MEAN_SHIFT * torch.randn(mean.shape, generator=generator)
        return real_mean + shifts, real_std * (low + (high - low) * torch.rand(std.shape, generator=generator))
