"""Global and local contrastive learning: contrasts crops, and regions within crops, by their position in the body.

Chaitanya et al., "Contrastive learning of global and local features for medical image segmentation with limited
annotations" (2020), https://arxiv.org/abs/2006.10511; the keys and their queue: He et al., "Momentum contrast" (2020),
https://arxiv.org/abs/1911.05722; `transitive`: Wang et al., "Transitive invariance for self-supervised visual
representation learning" (2017), https://arxiv.org/abs/1708.02901. Deviations: crops of the same scan are never
negatives, nor are empty rows of the queue; and the coarsest features are pooled by both mean and maximum, since after
an instance norm the mean alone hardly varies between volumes.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.data.crop_geometry import (
    NO_SCAN,
    CropPositions,
    PairStrategy,
    crop_positions,
    extend_positives,
    has_same_field_of_view,
    is_same_scan,
    number_looks,
    positive_and_ignored_pairs,
    voxel_to_scan_fraction,
)
from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.nn.collectives import all_gather_rows, get_rank, split_generator
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.masks import SeededGenerators
from medssl.nn.regions import (
    apply_affine,
    compute_voxel_transform,
    get_level_channels,
    is_inside,
    sample_features,
    sample_matching_points,
)
from medssl.nn.ring_buffer import RingBuffer
from medssl.nn.self_supervision.contrastive_loss import (
    contrastive_loss,
    match_regions,
    mix_hard_negatives,
    paired_view_mask,
)
from medssl.nn.self_supervision.global_head import GlobalHead
from medssl.nn.self_supervision.sorting import sorting_loss
from medssl.nn.self_supervision.teacher import copy_as_teacher, follow
from medssl.nn.step import Step
from medssl.objectives.base import Objective, ProjectionHead
from medssl.settings import Settings

AXES = ("left-right", "back-front", "feet-head")


class Config(Settings):
    """Settings of the pairs, the momentum encoder and the two losses."""

    name: Literal["global_local"] = Field("global_local", description="name of the objective")
    stage: Literal["joint", "global", "local"] = Field(
        "joint", description="losses to train with: both, or one of them; local freezes the encoder"
    )
    pairs: PairStrategy = Field(
        "GD",
        description="crops of the same partition of different scans: GD: positive; GD-: ignored; GR: negative",
    )
    region_pairs: Literal["LR", "LD"] = Field(
        "LR", description="positive regions: LR: within a scan; LD: also the corresponding region of another scan"
    )
    num_views: Literal[1, 2] = Field(
        1, description="crops of each volume; overlapping crops are matched by patient coordinates"
    )
    temperature: float = Field(0.1, gt=0, description="temperature of both losses")
    partitions: int = Field(4, ge=1, description="number of equal parts that a scan is divided into along the axis")
    axis: Literal["left-right", "back-front", "feet-head"] = Field("feet-head", description="axis of the partitions")
    fov_tolerance: float = Field(
        0.2, ge=0, description="scans whose extents differ by a smaller fraction have the same field of view"
    )
    exclusion_margin: float = Field(
        0.1, ge=0, le=1,
        description="crops of scans with different fields of view are ignored below this distance, as a fraction of "
        "the extent",
    )  # fmt: skip
    momentum: float | None = Field(
        0.999, ge=0, lt=1, description="EMA decay of the key encoder; null takes the keys from the batch itself"
    )
    queue_size: int = Field(1024, ge=0, description="number of keys in the queue; 0 if momentum is null")
    loss: Literal["infonce", "sorting"] = Field(
        "infonce", description="infonce: each positive against all negatives; sorting: all positives nearer than those"
    )
    steepness: float = Field(16.0, gt=0, description="loss=sorting: how sharply distances are compared")
    transitive: bool = Field(
        False, description="pairs=GD, num_views=2: crops that share half of their voxels have each other's positives"
    )
    num_mixed: int = Field(0, ge=0, description="mixtures of the hardest negatives that each crop gets; 0 is none")
    width: int = Field(128, ge=2, description="dimensions of an embedding")
    level: int = Field(1, ge=0, description="decoder level of the local loss; 0 is the finest")
    num_regions: int = Field(12, ge=2, description="regions compared in each crop")
    region_size: Literal[1, 3, 5] = Field(3, description="side of a region in positions of the decoded map")
    local_weight: float = Field(1.0, ge=0, description="weight of the local loss")
    strength: float = Field(
        1.0, ge=0, le=1, description="strength of the random intensity change between views; 0 is none"
    )
    seed: int = Field(0, ge=0, description="seed of regions and intensity changes")

    @model_validator(mode="after")
    def _check_queue_has_momentum(self) -> "Config":
        if self.momentum is None and self.queue_size:
            raise ValueError(
                f"queue_size {self.queue_size} needs a momentum encoder: set momentum, or set queue_size to 0"
            )
        if self.num_mixed and self.loss == "sorting":
            raise ValueError(f"num_mixed {self.num_mixed}: mixtures are negatives of loss=infonce; leave one out")
        if self.transitive and (self.pairs, self.num_views) != ("GD", 2):
            raise ValueError(
                "transitive: is for positives of other scans and two crops of each; set pairs=GD num_views=2"
            )
        return self


class GlobalLocal(Objective):
    """Attracts two augmented views of a crop and repels crops of other positions; does the same with regions."""

    config: Config
    is_contrastive = True
    allows_spatial_augmentation = False

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.views = config.num_views
        self.draws = SeededGenerators(config.seed)
        if config.stage == "local":
            encoder.requires_grad_(False)
        else:
            self.head = GlobalHead(encoder.channels[-1], config.width)
            blank_row = {"volume": torch.tensor(NO_SCAN), "along": torch.zeros(()), "extent_mm": torch.ones(3)}
            blank_row["look"] = torch.tensor(NO_SCAN)
            self.queue = RingBuffer(config.queue_size, z=torch.zeros(config.width), **blank_row)
            if config.momentum is not None:
                self.key = copy_as_teacher(nn.ModuleList([encoder, self.head]))
        if config.stage != "global":
            self.decoder = UNetDecoder(encoder.channels, encoder.strides, encoder.kernels)
            channels = get_level_channels(config.level, encoder)
            self.part = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.GELU(), nn.Conv3d(channels, config.width, 1))

    def step(self, crops: Crops) -> Step:
        """Computes the global loss, the local loss, or both, depending on the stage."""
        c, generator = self.config, self.draws()
        augmented = self.augment_views(crops, generator)
        pyramid = self.encoder(augmented)
        terms: dict[str, Tensor] = {}
        if c.stage != "global":
            maps = self.part(self.decoder(pyramid, c.level)[0])
            terms |= self.compute_local_loss(maps, crops, generator)
            z = take_center(maps)
        if c.stage != "local":
            z = self.head(pyramid[-1])
            terms |= self.compute_global_loss(z, augmented, crops, generator)
        weights = {"own": 1.0, "across": 1.0, "local": c.local_weight}
        loss = torch.stack([weights[name] * terms[name] for name in weights if name in terms]).sum()
        first, second = z.detach().chunk(2)
        return Step(loss, {name: value.detach() for name, value in terms.items()}, (first, second))

    def augment_views(self, crops: Crops, generator: torch.Generator) -> Float[Tensor, "n c i j k"]:
        """Returns all crops with a random change of intensity, followed by all crops with another change."""
        x = crops.x.flatten(0, 1)
        generators = (split_generator(generator, len(x)) for _ in range(2))
        return torch.cat([perturb_intensity(x, each, self.config.strength) for each in generators])

    def compute_global_loss(
        self,
        z: Float[Tensor, "n c"],
        augmented: Float[Tensor, "n d i j k"],
        crops: Crops,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Contrasts both views of each crop with all views of all processes and with the queue."""
        c = self.config
        with torch.no_grad():
            momentum_keys = None if c.momentum is None else self.key[1](self.key[0](augmented)[-1])
        positions = crop_positions(crops, AXES.index(c.axis))
        look = number_looks(crops) + get_rank() * len(positions.volume) + self.queue.pushed
        key_look, look = torch.cat([all_gather_rows(look)] * 2), torch.cat([look] * 2)
        key_positions = positions.map_columns(all_gather_rows)
        positions, key_positions = positions.concatenate(positions), key_positions.concatenate(key_positions)
        keys = torch.cat([all_gather_rows(half) for half in (z if momentum_keys is None else momentum_keys).chunk(2)])
        queue = self.queue.valid_rows()
        k = torch.cat([keys, queue.pop("z")])
        k_look = torch.cat([key_look, queue.pop("look")])
        k_positions = key_positions.concatenate(CropPositions(**queue))
        positive, ignore = positive_and_ignored_pairs(
            positions, k_positions, c.pairs, c.partitions, c.fov_tolerance, c.exclusion_margin
        )
        if c.transitive:
            positive = extend_positives(positive, look, k_look)
        paired = paired_view_mask(z, k)
        negative = ~(positive | ignore | paired)
        same_scan = is_same_scan(positions, k_positions)
        assert not (negative & same_scan).any(), "an empty row or a crop of the same scan is a negative; this is a bug"
        mixed = mix_hard_negatives(z, k, negative, c.num_mixed, generator) if c.num_mixed else None
        if self.training:
            self.queue.push(z=keys, look=key_look, **vars(key_positions))
        # Two separate terms, since a queue holds so many crops of the same partition that they would outweigh the pair.
        return {
            "own": self.contrast(z, k, paired, ~negative & ~paired, mixed),
            "across": self.contrast(z, k, positive, ~negative & ~positive, mixed),
            "negatives": negative.float().mean(),
            "comparable": has_same_field_of_view(positions, k_positions, c.fov_tolerance).float().mean(),
        }

    def compute_local_loss(
        self, maps: Float[Tensor, "n d p q r"], crops: Crops, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Attracts the same region in both views of each crop, and repels regions of the crop that do not overlap."""
        c, affine, shape = self.config, crops.affine.flatten(0, 1), crops.x.shape[-3:]
        first, second = maps.chunk(2)
        region = [c.region_size * n / m for n, m in zip(shape, maps.shape[2:], strict=True)]
        other, points, other_points = sample_matching_points(
            affine, self.views, shape, c.num_regions, max(region) / 2, generator
        )
        features = [
            sample_features(first, points, shape, c.region_size),
            sample_features(second[other], other_points, shape, c.region_size),
        ]
        valid = [torch.ones_like(points[..., 0], dtype=torch.bool)] * 2
        if c.region_pairs == "LD":
            scan, scan_points, is_covered = self.find_corresponding_points(crops, points)
            features.append(sample_features(all_gather_rows(second)[scan], scan_points, shape, c.region_size))
            valid.append(is_covered)
        disjoint = ((points[:, :, None] - points[:, None]).abs() >= points.new_tensor(region)).any(-1)
        positive, ignore = match_regions(torch.stack(valid, 1), disjoint)
        z = torch.cat(features, 1)
        return {
            "local": self.contrast(z, z, positive, ignore),
            "matched": torch.cat(valid).float().mean(),
        }

    def contrast(self, q: Tensor, k: Tensor, positive: Tensor, ignore: Tensor, mixed: Tensor | None = None) -> Tensor:
        """Computes the loss of embeddings; arguments are those of `contrastive_loss`."""
        if self.config.loss == "sorting":
            return sorting_loss(q, k, positive, ignore, self.config.steepness)
        return contrastive_loss(q, k, positive, ignore, self.config.temperature, mixed)

    def find_corresponding_points(
        self, crops: Crops, points: Float[Tensor, "n r 3"]
    ) -> tuple[Int[Tensor, "n"], Float[Tensor, "n r 3"], Bool[Tensor, "n r"]]:
        """Finds the points at the same relative position in another scan.

        Args:
            crops: Crops of several scans.
            points: Voxel indices of each crop.

        Returns:
            For each crop, the crop in the global batch, of the same partition of another scan, that covers most of the
            points, the voxel indices of the points in that crop, and which of them it covers.
        """
        c, positions = self.config, crop_positions(crops, AXES.index(self.config.axis))
        same_partition, _ = positive_and_ignored_pairs(
            positions, positions.map_columns(all_gather_rows), "GD", c.partitions, c.fov_tolerance, c.exclusion_margin
        )
        to_fraction, shape = voxel_to_scan_fraction(crops), crops.x.shape[-3:]
        targets = all_gather_rows(to_fraction)
        n, m = len(points), len(targets)
        rows = torch.arange(n, device=points.device)
        a, b = torch.cartesian_prod(rows, torch.arange(m, device=points.device)).unbind(1)
        mapped = apply_affine(points[a], compute_voxel_transform(to_fraction[a], targets[b])).unflatten(0, (n, m))
        is_covered = is_inside(mapped.flatten(0, 1), shape, 0.0).unflatten(0, (n, m)) & same_partition[..., None]
        scan = is_covered.sum(-1).argmax(1)
        return scan, mapped[rows, scan], is_covered[rows, scan]

    def after_step(self) -> None:
        """Updates the key encoder by an EMA, so that keys in the queue stay comparable with new ones."""
        if self.config.stage == "local" or self.config.momentum is None:
            return
        follow(self.key, nn.ModuleList([self.encoder, self.head]), self.config.momentum)

    def projection_head(self) -> ProjectionHead | None:
        """Returns the head of the global loss; None if this stage does without."""
        return None if self.config.stage == "local" else ProjectionHead(self.head.mlp, self.read_cells)

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder, and the decoder if this stage trains it."""
        return super().transferable() | ({"decoder": self.decoder} if self.config.stage != "global" else {})


def take_center(maps: Float[Tensor, "n d p q r"]) -> Float[Tensor, "n d"]:
    """Returns the features at the center of each map."""
    i, j, k = (n // 2 for n in maps.shape[2:])
    return maps[..., i, j, k]
