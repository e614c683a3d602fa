"""Trains one encoder, and one decoder, with the weighted sum of the losses of several objectives.

For example reconstruction and contrast, which were best for classification in the FOMO25 challenge (2025),
https://fomo25.github.io, where reconstruction alone was best for segmentation; or reconstruction, contrast and
rotation: Atito et al., "SiT: self-supervised vision transformer" (2021), https://arxiv.org/abs/2104.03602. Objectives
that hide the same patches, those with equal `mask_ratio`, `air_threshold` and `seed`, share one run of the encoder.
Deviation from SiT: objectives that alter the crops in their own ways run the encoder once each.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from medssl.config import class_for_config, module_choice
from medssl.data.crops import Crops
from medssl.nn.encoder import Encoder
from medssl.nn.step import Step
from medssl.objectives.base import EncodedPatches, MaskedObjective, Objective, ProjectionHead
from medssl.settings import Settings

DEFAULT_WEIGHTS = {"spark": 1.0, "global_local": 0.1}


class Config(Settings):
    """The weights and the settings of the objectives."""

    name: Literal["sum"] = Field("sum", description="name of the objective")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        DEFAULT_WEIGHTS, min_length=1, description="weight of the loss of each objective, by its name"
    )
    terms: dict[str, module_choice("medssl.objectives")] = Field(  # type: ignore[valid-type]
        {}, description="settings of these objectives, by name, where they differ from the defaults"
    )

    @model_validator(mode="before")
    @classmethod
    def _add_missing_terms(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        weights, terms = values.get("weights", DEFAULT_WEIGHTS), values.get("terms", {})
        if not isinstance(weights, dict) or not isinstance(terms, dict):
            return values
        unknown = sorted(set(terms) - set(weights))
        if unknown:
            raise ValueError(f"terms.{unknown[0]}: has no weight; add it to `weights`, which has {', '.join(weights)}")
        return values | {"weights": weights, "terms": {n: _add_name(terms.get(n, {}), n) for n in weights}}


def _add_name(settings: Any, name: str) -> Any:
    return {"name": name} | settings if isinstance(settings, dict) else settings


class Sum(Objective):
    """The weighted sum of the losses of several objectives on the same crops."""

    config: Config

    def __init__(self, config: Config, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        terms: dict[str, Objective] = {
            name: class_for_config(settings)(settings, encoder) for name, settings in config.terms.items()
        }
        self.terms = nn.ModuleDict(terms)
        self.views = max(term.views for term in terms.values())
        self.is_contrastive = any(term.is_contrastive for term in terms.values())
        self.allows_spatial_augmentation = all(term.allows_spatial_augmentation for term in terms.values())
        self.needs_start = any(term.needs_start for term in terms.values())
        self.min_spread_fraction = min(term.min_spread_fraction for term in terms.values())
        _share_decoder(list(terms.values()))

    def list_terms(self) -> list[tuple[str, Objective]]:
        """Returns the objectives and their names, in the order of the weights."""
        return [(name, term) for name, term in self.terms.items() if isinstance(term, Objective)]

    def check_crop(self, x: Float[Tensor, "b c i j k"]) -> None:
        """Raises BadInput if one of the objectives cannot train on crops of this shape."""
        for _, term in self.list_terms():
            term.check_crop(x)

    def read_cases(self, cases: Sequence[str]) -> None:
        """Reads what each objective knows of the cases."""
        for _, term in self.list_terms():
            term.read_cases(cases)

    def prepare(self, crops: Crops) -> Crops:
        """Draws the mask of a batch, if all objectives that mask it draw the same; others draw theirs in a step."""
        masked = [term for _, term in self.list_terms() if isinstance(term, MaskedObjective)]
        is_shared = masked and all(term.describe_masks() == masked[0].describe_masks() for term in masked)
        return masked[0].prepare(crops) if is_shared else crops

    def step(self, crops: Crops) -> Step:
        """Computes all losses; the logs of each objective are prefixed, the first contrastive one gives the pairs."""
        steps = self._step_terms(crops)
        loss = sum((self.config.weights[name] * step.loss for name, step in steps.items()), start=crops.x.new_zeros(()))
        logs = {name: step.loss.detach() for name, step in steps.items()}
        logs |= {f"{name}_{key}": value for name, step in steps.items() for key, value in step.logs.items()}
        pairs = [step.positive_pairs for step in steps.values() if step.positive_pairs]
        return Step(loss, logs, pairs[0] if pairs else None)

    def _step_terms(self, crops: Crops) -> dict[str, Step]:
        """Computes each loss; objectives with equal masks read one encoding of the visible patches."""
        encodings: list[tuple[dict[str, Any], EncodedPatches]] = []
        steps = {}
        for name, term in self.list_terms():
            if not (isinstance(term, MaskedObjective) and term.reads_patches):
                steps[name] = term.step(crops)
                continue
            settings = term.describe_masks()
            encoded = next((encoded for masks, encoded in encodings if masks == settings), None)
            if encoded is None:
                encoded = term.encode(crops)
                encodings.append((settings, encoded))
            steps[name] = term.step_encoded(crops, encoded)
        return steps

    def after_step(self) -> None:
        """Runs `after_step` of every objective."""
        for _, term in self.list_terms():
            term.after_step()

    def transferable(self) -> dict[str, nn.Module]:
        """Returns the encoder, and the decoder of the first objective that hands one over."""
        parts: dict[str, nn.Module] = {}
        for _, term in self.list_terms():
            parts = term.transferable() | parts
        return parts

    def projection_head(self) -> ProjectionHead | None:
        """Returns the projection head of the first objective that has one."""
        heads = (term.projection_head() for _, term in self.list_terms())
        return next((head for head in heads if head), None)

    def preview(self, crops: Crops) -> dict[str, Float[Tensor, "c i j k"]]:
        """Returns the previews of all objectives, named after them."""
        previews = [(name, term.preview(crops)) for name, term in self.list_terms()]
        return {f"{name}_{key}": volume for name, volumes in previews for key, volume in volumes.items()}


def _share_decoder(terms: list[Objective]) -> None:
    """Lets all objectives that hand over a decoder train the first one, if they have the same structure."""
    owners = [term for term in terms if "decoder" in term.transferable()]
    for term in owners[1:]:
        if _list_shapes(term.decoder) == _list_shapes(owners[0].decoder):
            term.decoder = owners[0].decoder


def _list_shapes(network: Any) -> dict[str, Any]:
    return {name: value.shape for name, value in network.state_dict().items()}
