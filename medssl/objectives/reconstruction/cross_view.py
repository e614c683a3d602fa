"""Cross-view completion: reconstructs the hidden patches of a crop from its visible ones and another crop of the scan.

Weinzaepfel et al., "CroCo: self-supervised pre-training for 3D vision tasks by cross-view completion" (2022),
https://arxiv.org/abs/2210.10716, and "CroCo v2" (2023), https://arxiv.org/abs/2211.10408. Deviations: encoder, masking
and decoder are those of SparK; the other crop is read by cross-attention at the coarsest level; and the network knows
the positions of both crops in mm of the patient, so that it need not guess how they lie to each other.
"""

from typing import Literal

from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.nn import masks
from medssl.nn.encoder import Encoder
from medssl.nn.regions import apply_affine
from medssl.nn.self_supervision.cell_predictor import NUM_HEADS, CrossAttention
from medssl.nn.self_supervision.tokens import cell_positions_mm, embed_positions, swap_views, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import Objective
from medssl.objectives.reconstruction.base import MaskConfig
from medssl.objectives.reconstruction.spark import Config as SparkConfig
from medssl.objectives.reconstruction.spark import Spark


class Config(MaskConfig):
    """Settings of masking, of what is reconstructed, and of the attention to the other crop."""

    name: Literal["cross_view"] = Field("cross_view", description="name of the objective")
    width: int = Field(96, ge=6, multiple_of=NUM_HEADS, description="dimensions within the attention")
    depth: int = Field(2, ge=1, description="attention blocks that read the other crop")


class CrossView(Objective):
    """Reconstructs the hidden patches of each of two crops of a scan with the help of the other one."""

    config: Config
    views = 2
    allows_spatial_augmentation = False

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.spark = Spark(SparkConfig(**config.model_dump(include=set(MaskConfig.model_fields))), encoder)
        self.reader = ViewReader(self.spark.decoder.channels[-1], encoder.channels[-1], config.width, config.depth)

    def step(self, crops: Crops) -> Step:
        """Computes the squared error on hidden body patches, as SparK does."""
        mask = self.spark.require_mask(crops)
        reconstruction = self.reconstruct(crops, mask.visible, mask.num_visible)
        return self.spark.compute_loss(reconstruction, crops.reconstruction_target(), mask.visible, mask.body)

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if crops have too few patches to hide some of them."""
        self.spark.check_crop(x)

    def prepare(self, crops: Crops) -> Crops:
        """Draws the mask of a batch."""
        return self.spark.prepare(crops)

    def reconstruct(
        self, crops: Crops, visible: Bool[Tensor, "b 1 p q r"], num_visible: int | None = None
    ) -> Float[Tensor, "b c i j k"]:
        """Predicts all voxels of each crop from its visible patches and from the whole other crop."""
        x = crops.x.flatten(0, 1)
        executor = self.encoder.build_executor(x, visible, num_visible)
        *fine, coarsest = self.spark.densify_levels(self.encoder.features(x, executor), executor)
        other = swap_views(x)
        body = masks.find_body_patches(other, self.encoder.patch, self.config.air_threshold)
        affine = crops.affine.flatten(0, 1)
        own_mm, other_mm = (
            self._locate_cells(affine, affine, coarsest),
            self._locate_cells(swap_views(affine), affine, coarsest),
        )
        coarsest = coarsest + self.reader(
            coarsest, to_tokens(self.encoder(other)[-1]), body.flatten(1), own_mm, other_mm
        )
        return self.spark.decode([*fine, coarsest])

    def _locate_cells(
        self, affine: Float[Tensor, "b 4 4"], origin: Float[Tensor, "b 4 4"], maps: Float[Tensor, "b d p q r"]
    ) -> Float[Tensor, "b n 3"]:
        """Returns the centres of the coarsest cells of crops in mm, relative to the centres of other crops."""
        p, q, r = maps.shape[2:]
        centred = cell_positions_mm((p, q, r), self.encoder.patch, (1.0, 1.0, 1.0), affine)
        middle = (affine.new_tensor([p, q, r]) * affine.new_tensor(self.encoder.patch) - 1) / 2
        centre_mm = apply_affine(middle.expand(len(affine), 1, 3), origin)
        return apply_affine((centred + middle).expand(len(affine), -1, -1), affine) - centre_mm


class ViewReader(nn.Module):
    """Reads the tokens of another crop into a feature map by cross-attention, and is thrown away afterwards."""

    def __init__(self, in_channels: int, context_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.enter, self.enter_context = nn.Linear(in_channels, width), nn.Linear(context_channels, width)
        self.blocks = nn.ModuleList(CrossAttention(width) for _ in range(depth))
        self.leave = nn.Linear(width, in_channels)

    def forward(
        self,
        maps: Float[Tensor, "b c p q r"],
        context: Float[Tensor, "b n d"],
        is_known: Bool[Tensor, "b n"],
        positions_mm: Float[Tensor, "b m 3"],
        context_positions_mm: Float[Tensor, "b n 3"],
    ) -> Float[Tensor, "b c p q r"]:
        """Returns what is added to a feature map; it is read from known cells, and 0 where there are none."""
        p, q, r = maps.shape[2:]
        x = self.enter(to_tokens(maps)) + self._embed_places(positions_mm, maps)
        other = self.enter_context(context) + self._embed_places(context_positions_mm, maps)
        is_empty = ~is_known.any(1)
        for block in self.blocks:
            x = block(x, other, is_known | is_empty[:, None])
        update = self.leave(x) * ~is_empty[:, None, None]
        return rearrange(update, "b (p q r) c -> b c p q r", p=p, q=q, r=r)

    def _embed_places(self, positions_mm: Float[Tensor, "b n 3"], like: Tensor) -> Float[Tensor, "b n d"]:
        places = embed_positions(positions_mm.flatten(0, 1), self.width)
        return places.to(like.dtype).unflatten(0, positions_mm.shape[:2])
