"""DINO and iBOT in 3D: a student predicts a teacher's prototypes of other crops of a scan, and of hidden patches.

Caron et al., "Emerging properties in self-supervised vision transformers" (2021), https://arxiv.org/abs/2104.14294;
Zhou et al., "iBOT" (2022), https://arxiv.org/abs/2111.07832; Oquab et al., "DINOv2" (2023),
https://arxiv.org/abs/2304.07193. With `instance_weight` also Bi et al., "Cross-level multi-instance distillation for
self-supervised fine-grained visual categorization" (2024), https://arxiv.org/abs/2401.08860. Deviations: a hierarchical
encoder, exactly masked as in SparK, with a predictor for the hidden patches in place of mask tokens; local crops are
parts of the two global ones; and Sinkhorn's algorithm balances the targets of patches, while the few crops of a 3D
batch are balanced by centring over many steps.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from medssl.data.crops import Crops
from medssl.data.transforms.intensity import perturb_intensity
from medssl.data.transforms.patch_mask import PatchMask
from medssl.nn import masks
from medssl.nn.attention.pool import AttentionPool
from medssl.nn.collectives import all_gather_rows, draw_rows, split_generator
from medssl.nn.encoder import Encoder
from medssl.nn.self_supervision.prototypes import PrototypeHead, assign_equally, compute_divergence, spread_loss
from medssl.nn.self_supervision.teacher import copy_as_teacher, follow
from medssl.nn.self_supervision.tokens import swap_views, to_tokens
from medssl.nn.step import Step
from medssl.objectives.base import CellConfig, CellObjective, ProjectionHead

CENTRE_MOMENTUM = 0.9
MIN_LOCAL_PATCHES = 3  # along each axis, as bf16 needs on a CPU


class Config(CellConfig):
    """Settings of the crops, the prototypes and the teacher."""

    name: Literal["dino"] = Field("dino", description="name of the objective")
    mask_ratio: masks.MaskRatio = Field(
        0.5, description="fraction of the body patches to hide; a range [low, high] is sampled once for each volume"
    )
    num_local: int = Field(2, ge=0, description="local crops that are cut out of each crop")
    local_fraction: float = Field(
        0.5, gt=0, le=1, description="side of a local crop, as a fraction of the crop; at least three patches"
    )
    num_prototypes: int = Field(256, ge=2, description="number of prototypes")
    student_temperature: float = Field(0.1, gt=0, description="temperature of the student's probabilities")
    teacher_temperature: float = Field(0.05, gt=0, description="temperature of the teacher's probabilities")
    patch_weight: float = Field(1.0, ge=0, description="weight of the loss on hidden patches")
    spread_weight: float = Field(0.1, ge=0, description="weight of the loss that spreads the embeddings of volumes")
    instance_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the losses between whole crops and attention-pooled patches",
    )
    momentum: float = Field(0.99, ge=0, le=1, description="EMA decay of the teacher")
    strength: float = Field(1.0, ge=0, le=1, description="strength of the random intensity change of a crop; 0 is none")


class Dino(CellObjective):
    """Predicts the teacher's prototypes of the other crop of the scan, and of the hidden patches of each crop."""

    config: Config
    views = 2
    reads_patches = False  # the student sees crops whose intensities are changed
    is_contrastive = True  # embeddings are compared, so they can collapse
    centre: Tensor

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        channels = encoder.channels[-1]
        self.head = PrototypeHead(2 * channels, config.width, config.num_prototypes)
        self.patch_head = PrototypeHead(channels, config.width, config.num_prototypes)
        self.instances = InstanceEmbedding(channels) if config.instance_weight else nn.Identity()
        self.teacher = copy_as_teacher(self._list_students())
        self.register_buffer("centre", torch.zeros(config.num_prototypes))

    def step(self, crops: Crops) -> Step:
        """Computes the divergences of crops and of hidden patches, and the loss that spreads embeddings."""
        config, mask = self.config, self.require_mask(crops)
        visible, hidden, generator = mask.visible, (mask.body & ~mask.visible).flatten(1), self.draws()
        x = self._perturb(crops.x.flatten(0, 1), generator)
        targets, patch_targets, taught, instance_targets = self.compute_targets(x, hidden)
        tokens = self.encode_visible(x, mask)
        predicted = self.predict(tokens, visible, crops.affine)
        embedding = pool_cells(tokens, visible.flatten(1))
        crop_error = compute_divergence(swap_views(targets), self.head(embedding), config.student_temperature)
        errors = [crop_error, *self.compare_local(x, targets, generator)]
        instances = self.compare_instances(tokens, visible.flatten(1), embedding, targets, instance_targets)
        error = compute_divergence(patch_targets, self.patch_head(predicted), config.student_temperature)
        patch_loss = masks.masked_mean(error, hidden)
        spread = spread_loss(embedding, crops.volume.repeat_interleave(crops.x.shape[1]))
        loss = torch.cat(errors).mean()
        entropy = torch.special.entr(targets).sum(1).mean()
        logs = {"crops": loss, "patches": patch_loss, "spread": spread, "entropy": entropy, "instances": instances}
        total = loss + config.patch_weight * patch_loss + config.spread_weight * spread
        total = total + config.instance_weight * instances
        return Step(total, {name: value.detach() for name, value in logs.items()}, (embedding.detach(), taught))

    @torch.no_grad()
    def compute_targets(
        self, x: Float[Tensor, "b c i j k"], hidden: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b m"], Float[Tensor, "b n m"], Float[Tensor, "b d"], Float[Tensor, "b m"]]:
        """Returns the teacher's prototypes of whole crops and of hidden patches, and its embeddings of the crops.

        The last result are the prototypes of the attention-pooled patches; those of whole crops without them.
        """
        encoder, head, patch_head, instances = self.teacher
        tokens, everywhere = to_tokens(encoder(x)[-1]), torch.ones_like(hidden)
        embedding = pool_cells(tokens, everywhere)
        similarity, temperature = head(embedding), self.config.teacher_temperature
        targets = ((similarity - self.centre) / temperature).softmax(-1)
        instance_targets = targets
        if self.config.instance_weight:
            instance_targets = ((head(instances(tokens, everywhere)) - self.centre) / temperature).softmax(-1)
        patches = assign_equally(patch_head(tokens).flatten(0, 1), hidden.flatten(), temperature)
        if self.training:
            self.centre.lerp_(all_gather_rows(similarity).mean(0), 1 - CENTRE_MOMENTUM)
        return targets, patches.unflatten(0, hidden.shape), embedding.float(), instance_targets

    def encode_visible(self, x: Float[Tensor, "b c i j k"], mask: PatchMask) -> Float[Tensor, "b n d"]:
        """Returns the coarsest features of the visible patches as tokens, 0 where hidden."""
        executor = self.encoder.build_executor(x, mask.visible, mask.num_visible)
        return to_tokens(executor.to_dense(self.encoder.features(x, executor)[-1]))

    def compare_instances(
        self,
        tokens: Float[Tensor, "b n d"],
        visible: Bool[Tensor, "b n"],
        embedding: Float[Tensor, "b e"],
        targets: Float[Tensor, "b m"],
        instance_targets: Float[Tensor, "b m"],
    ) -> Float[Tensor, ""]:
        """Returns the mean divergence of attention-pooled patches and whole crops from each other."""
        if not self.config.instance_weight:
            return tokens.new_zeros((), dtype=torch.float32)
        temperature = self.config.student_temperature
        bags = compute_divergence(swap_views(targets), self.head(self.instances(tokens, visible)), temperature)
        crops = compute_divergence(swap_views(instance_targets), self.head(embedding), temperature)
        return (bags.mean() + crops.mean()) / 2

    def compare_local(
        self, x: Float[Tensor, "b c i j k"], targets: Float[Tensor, "b m"], generator: torch.Generator
    ) -> list[Float[Tensor, "b"]]:
        """Returns the divergences of local crops from the targets of both global crops of their scan."""
        errors = []
        for _ in range(self.config.num_local):
            coarsest = self.encoder(self._perturb(self.cut_local(x, generator), generator))[-1]
            tokens = to_tokens(coarsest)
            similarity = self.head(pool_cells(tokens, tokens.new_ones(tokens.shape[:2]).bool()))
            for target in (targets, swap_views(targets)):
                errors.append(compute_divergence(target, similarity, self.config.student_temperature))
        return errors

    def cut_local(self, x: Float[Tensor, "b c i j k"], generator: torch.Generator) -> Float[Tensor, "b c p q r"]:
        """Cuts a part out of each crop at a random place; its sides are multiples of the encoder's total stride."""
        fraction, patch = self.config.local_fraction, self.encoder.patch
        counts = [n // side for n, side in zip(x.shape[2:], patch, strict=True)]
        fewest = [min(n, MIN_LOCAL_PATCHES) for n in counts]
        sides = [max(low, round(fraction * n)) * side for low, n, side in zip(fewest, counts, patch, strict=True)]
        free = torch.tensor([n - side + 1 for n, side in zip(x.shape[2:], sides, strict=True)])
        corners = (draw_rows((len(x), 3), generator) * free).long().tolist()
        p, q, r = sides
        return torch.stack(
            [crop[:, i : i + p, j : j + q, k : k + r] for crop, (i, j, k) in zip(x, corners, strict=True)]
        )

    def projection_head(self) -> ProjectionHead:
        """Returns the layers before the prototypes of whole crops."""
        return ProjectionHead(self.head.mlp, self.read_cells)

    def after_step(self) -> None:
        """Lets the teacher follow the encoder and the heads."""
        follow(self.teacher, self._list_students(), self.config.momentum)

    def _list_students(self) -> nn.ModuleList:
        return nn.ModuleList([self.encoder, self.head, self.patch_head, self.instances])

    def _perturb(self, x: Float[Tensor, "b c i j k"], generator: torch.Generator) -> Float[Tensor, "b c i j k"]:
        return perturb_intensity(x, split_generator(generator, len(x)), self.config.strength)


def pool_cells(tokens: Float[Tensor, "b n d"], where: Bool[Tensor, "b n"]) -> Float[Tensor, "b e"]:
    """Returns the mean and the maximum of the tokens of some cells."""
    mean = (tokens * where[..., None]).sum(1) / where.sum(1, keepdim=True)
    return torch.cat([mean, tokens.masked_fill(~where[..., None], float("-inf")).amax(1)], 1)


class InstanceEmbedding(nn.Module):
    """Embeds a crop by its most telling patches, in the dimensions of `pool_cells`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool, self.widen = AttentionPool(channels), nn.Linear(channels, 2 * channels)

    def forward(self, tokens: Float[Tensor, "b n d"], where: Bool[Tensor, "b n"]) -> Float[Tensor, "b e"]:
        """Returns one embedding of some tokens of each crop."""
        return self.widen(self.pool(tokens, where)[0][:, 0])
