"""Global and local contrastive learning: crops against crops, regions against regions, by where they lie in the body.

Chaitanya et al., "Contrastive learning of global and local features for medical image segmentation with limited
annotations" (2020), https://arxiv.org/abs/2006.10511; the keys and their queue: He et al., "Momentum contrast" (2020),
https://arxiv.org/abs/1911.05722. Deviations: crops of one scan are never negatives, the published batches' blank images
neither; and both the mean and the maximum of the coarsest features are pooled, since after an instance norm the mean
alone hardly varies between volumes.
"""

import copy
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.data.crop_geometry import NOWHERE, Pairs, Places, comparable, places, relate, same_scan, share_of_scan
from medssl.data.crops import Crops
from medssl.data.transforms.intensity import vary
from medssl.nn.contrastive_loss import contrast, gathered, twins
from medssl.nn.decoder import UNetDecoder
from medssl.nn.encoder import Encoder
from medssl.nn.masks import Draws
from medssl.nn.regions import both_views, crossing, inside, moved, sample, width_at
from medssl.nn.ring_buffer import Ring
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.settings import Settings

AXES = ("left-right", "back-front", "feet-head")


class Config(Settings):
    """Which pairs attract, globally and locally, and who the keys are."""

    name: Literal["global_local"] = "global_local"
    stage: Literal["joint", "global", "local"] = Field("joint", description="local: the encoder is frozen")
    pairs: Pairs = "GD"
    regions_of: Literal["LR", "LD"] = Field("LR", description="LD: the same region of another scan attracts too")
    views: Literal[1, 2] = Field(1, description="crops of a volume; overlapping ones are matched by coordinates")
    temperature: float = Field(0.1, gt=0)
    partitions: int = Field(4, ge=1)
    axis: Literal["left-right", "back-front", "feet-head"] = "feet-head"
    tolerance: float = Field(0.2, ge=0, description="extents that differ by less are one field of view")
    soft: float = Field(0.1, ge=0, le=1, description="share of the extent; nearer crops of unlike scans are left out")
    momentum: float | None = Field(0.999, ge=0, lt=1, description="of the key encoder; null lets the batch be its keys")
    queue: int = Field(1024, ge=0)
    width: int = Field(128, ge=2)
    level: int = Field(1, ge=0, description="decoded map of the local loss, 0 is the finest")
    regions: int = Field(12, ge=2)
    region: Literal[1, 3, 5] = Field(3, description="side of a region in positions of its map")
    local_weight: float = Field(1.0, ge=0)
    strength: float = Field(1.0, ge=0, le=1, description="of the intensity change between two looks")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _a_queue_needs_slow_keys(self) -> "Config":
        if self.momentum is None and self.queue:
            raise ValueError("a queue holds keys of a slow encoder: give a momentum, or set queue to 0")
        return self


class GlobalLocal(Objective):
    """Two looks at a crop attract each other and repel crops of other places; so do regions inside a crop."""

    config: Config
    compares = True
    turns = False

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.views = config.views
        self.draws = Draws(config.seed)
        if config.stage == "local":
            encoder.requires_grad_(False)
        else:
            self.head = Pooled(encoder.channels[-1], config.width)
            blank = {"volume": torch.tensor(NOWHERE), "along": torch.zeros(()), "extent_mm": torch.ones(3)}
            self.queue = Ring(config.queue, z=torch.zeros(config.width), **blank)
            if config.momentum is not None:
                self.key = copy.deepcopy(nn.ModuleList([encoder, self.head])).requires_grad_(False)
        if config.stage != "global":
            self.decoder = UNetDecoder(encoder.channels, encoder.strides)
            inward = width_at(config.level, encoder)
            self.part = nn.Sequential(nn.Conv3d(inward, inward, 1), nn.GELU(), nn.Conv3d(inward, config.width, 1))

    def step(self, crops: Crops) -> Step:
        """The global and the local loss, or the one of this stage."""
        c, generator = self.config, self.draws()
        looks = self.looks(crops, generator)
        pyramid = self.encoder(looks)
        terms: dict[str, Tensor] = {}
        if c.stage != "global":
            maps = self.part(self.decoder(pyramid, c.level)[0])
            terms |= self.parts(maps, crops, generator)
            z = middle(maps)
        if c.stage != "local":
            z = self.head(pyramid[-1])
            terms |= self.whole(z, looks, crops)
        weights = {"own": 1.0, "across": 1.0, "local": c.local_weight}
        loss = torch.stack([weights[name] * terms[name] for name in weights if name in terms]).sum()
        first, second = z.detach().chunk(2)
        return Step(loss, {name: value.detach() for name, value in terms.items()}, (first, second))

    def looks(self, crops: Crops, generator: torch.Generator) -> Float[Tensor, "n c i j k"]:
        """Every crop with one change of intensity, then every crop with another."""
        return torch.cat([vary(crops.x.flatten(0, 1), generator, self.config.strength) for _ in range(2)])

    def whole(self, z: Float[Tensor, "n c"], looks: Float[Tensor, "n d i j k"], crops: Crops) -> dict[str, Tensor]:
        """Both looks at every crop against both looks at every crop of all processes, and against the queue."""
        c = self.config
        with torch.no_grad():
            slow = None if c.momentum is None else self.key[1](self.key[0](looks)[-1])
        here = places(crops, AXES.index(c.axis))
        here = here.cat(here)
        new, there, old = gathered(z if slow is None else slow), here.map(gathered), self.queue.filled()
        k, all_places = torch.cat([new, old.pop("z")]), there.cat(Places(**old))
        attract, ignore = relate(here, all_places, c.pairs, c.partitions, c.tolerance, c.soft)
        own = twins(z, k)
        negative = ~(attract | ignore | own)
        assert not (negative & same_scan(here, all_places)).any(), "a blank or a crop of the same scan is a negative"
        if self.training:
            self.queue.push(z=new, **vars(there))
        # Apart, because a queue holds so many crops of the same partition that they would drown the crop's own pair.
        return {
            "own": contrast(z, k, own, ~negative & ~own, c.temperature),
            "across": contrast(z, k, attract, ~negative & ~attract, c.temperature),
            "negatives": negative.float().mean(),
            "comparable": comparable(here, all_places, c.tolerance).float().mean(),
        }

    def parts(self, maps: Float[Tensor, "n d p q r"], crops: Crops, generator: torch.Generator) -> dict[str, Tensor]:
        """Each crop's regions: the same region of the other look attracts, regions that do not overlap it repel."""
        c, affine, shape = self.config, crops.affine.flatten(0, 1), crops.x.shape[-3:]
        first, second = maps.chunk(2)
        reach = [c.region * n / m for n, m in zip(shape, maps.shape[2:], strict=True)]
        other, here, there = both_views(affine, self.views, shape, c.regions, max(reach) / 2, generator)
        seen = [sample(first, here, shape, c.region), sample(second[other], there, shape, c.region)]
        known = [torch.ones_like(here[..., 0], dtype=torch.bool)] * 2
        if c.regions_of == "LD":
            scan, at, valid = self.corresponding(crops, here)
            seen.append(sample(second[scan], at, shape, c.region))
            known.append(valid)
        apart = ((here[:, :, None] - here[:, None]).abs() >= here.new_tensor(reach)).any(-1)
        positive, ignore = same_region(torch.stack(known, 1), apart)
        z = torch.cat(seen, 1)
        return {"local": contrast(z, z, positive, ignore, c.temperature), "matched": torch.cat(known).float().mean()}

    def corresponding(
        self, crops: Crops, points: Float[Tensor, "n r 3"]
    ) -> tuple[Int[Tensor, "n"], Float[Tensor, "n r 3"], Bool[Tensor, "n r"]]:
        """For each crop the best crop of the same partition of another scan, the places there, and which it covers."""
        c, here = self.config, places(crops, AXES.index(self.config.axis))
        attract, _ = relate(here, here, "GD", c.partitions, c.tolerance, c.soft)
        share, shape = share_of_scan(crops), crops.x.shape[-3:]
        n = len(points)
        rows = torch.arange(n, device=points.device)
        a, b = torch.cartesian_prod(rows, rows).unbind(1)
        at = moved(points[a], crossing(share[a], share[b])).unflatten(0, (n, n))
        covered = inside(at.flatten(0, 1), shape, 0.0).unflatten(0, (n, n)) & attract[..., None]
        scan = covered.sum(-1).argmax(1)
        return scan, at[rows, scan], covered[rows, scan]

    @torch.no_grad()
    def after_step(self) -> None:
        """The keys follow slowly: were they to run ahead of the queue, a common drift would tell new from old."""
        if self.config.stage == "local" or self.config.momentum is None:
            return
        fast = nn.ModuleList([self.encoder, self.head])
        for slow, weight in zip(self.key.parameters(), fast.parameters(), strict=True):
            slow.lerp_(weight, 1 - self.config.momentum)

    def transferable(self) -> dict[str, nn.Module]:
        """The encoder, and the downstream decoder where this stage trains it."""
        return super().transferable() | ({"decoder": self.decoder} if self.config.stage != "global" else {})


class Pooled(nn.Module):
    """One embedding a crop, from the mean and the maximum of its coarsest features."""

    def __init__(self, inward: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * inward, inward), nn.GELU(), nn.Linear(inward, width))

    def forward(self, x: Float[Tensor, "n c p q r"]) -> Float[Tensor, "n d"]:
        """The embedding, not normalised."""
        return self.mlp(torch.cat([x.mean((2, 3, 4)), x.amax((2, 3, 4))], 1))


def middle(maps: Float[Tensor, "n d p q r"]) -> Float[Tensor, "n d"]:
    """What lies in the middle of each map."""
    i, j, k = (n // 2 for n in maps.shape[2:])
    return maps[..., i, j, k]


def same_region(
    known: Bool[Tensor, "n s r"], apart: Bool[Tensor, "n r r"]
) -> tuple[Bool[Tensor, "n sr sr"], Bool[Tensor, "n sr sr"]]:
    """Which regions attract, of `s` sides with `r` regions each, and which are left out: overlapping, or not known."""
    _, sides, regions = known.shape
    side = torch.arange(sides, device=known.device).repeat_interleave(regions)
    region = torch.arange(regions, device=known.device).repeat(sides)
    both = known.flatten(1)[:, :, None] & known.flatten(1)[:, None]
    positive = (region[:, None] == region) & (side[:, None] != side) & both
    return positive, ~positive & ~(apart.repeat(1, sides, sides) & both)
