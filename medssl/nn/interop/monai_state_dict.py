"""Infers the architecture of MONAI's SwinUNETR and SegResNet from bare tensors, as SuPreM and VoCo publish them."""

import re
from collections.abc import Mapping

from torch import Tensor

from medssl.errors import BadInput
from medssl.nn.encoders import segresnet, swinunetr
from medssl.nn.interop.state_dict_names import ImportedEncoder, load_encoder

SWIN_EMBEDDING = "swinViT.patch_embed.proj.weight"
SEGRESNET_STEM = "convInit.conv.weight"
SWIN_BLOCK = re.compile(r"swinViT\.layers(\d)\.0\.blocks\.(\d+)\.attn\.relative_position_bias_table")
SEGRESNET_BLOCK = re.compile(r"down_layers\.(\d+)\.(\d+)\.conv1\.conv\.weight")
KNOWN_NETWORKS = {
    "eva.": "a Primus of version 2 or 3",
    "vit.": "a vision transformer",
    "down_tr64.": "the U-Net of Models Genesis",
    "input_block.": "a DynUNet, which is imported as a MONAI bundle with its network_def",
}


def is_monai(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether a checkpoint holds a SwinUNETR, its transformer alone, or a SegResNet."""
    return bool({SWIN_EMBEDDING, SEGRESNET_STEM, SWIN_EMBEDDING.removeprefix("swinViT.")} & tensors.keys())


def import_state_dict(tensors: Mapping[str, Tensor], where: str) -> ImportedEncoder:
    """Builds the encoder of a bare state dict, with its architecture from names and shapes.

    Args:
        tensors: The tensors by their names in MONAI.
        where: Name of the file, for error messages.

    Raises:
        BadInput: If a tensor of the encoder is missing or has another shape.
    """
    if SEGRESNET_STEM in tensors:
        return load_encoder(_infer_segresnet(tensors), tensors[SEGRESNET_STEM].shape[1], tensors, where)
    if SWIN_EMBEDDING not in tensors:
        tensors = {f"swinViT.{name}": value for name, value in tensors.items()}
    tensors, config = _to_monai_names(tensors), _infer_swinunetr(tensors, where)
    # A transformer pretrained by itself has no convolution blocks, which then keep their initial values.
    fresh = "" if any(name.startswith("encoder1.") for name in tensors) else "encoder.encoder"
    return load_encoder(config, tensors[SWIN_EMBEDDING].shape[1], tensors, where, fresh)


def describe_network(tensors: Mapping[str, Tensor]) -> str:
    """Returns what a checkpoint without a supported encoder holds, in words for an error message."""
    for prefix, description in KNOWN_NETWORKS.items():
        if any(name.startswith(prefix) for name in tensors):
            return description
    if any(value.ndim == 4 for value in tensors.values()) and not any(value.ndim == 5 for value in tensors.values()):
        return "a network for 2D images"
    return f"tensors such as {', '.join(sorted(tensors)[:3])}" if tensors else "no tensors"


def _to_monai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the linear layers of MONAI's self-supervised transformer (fc1, fc2) to those of SwinUNETR."""
    return {name.replace(".mlp.fc", ".mlp.linear"): value for name, value in tensors.items()}


def _infer_swinunetr(tensors: Mapping[str, Tensor], where: str) -> swinunetr.Config:
    """Infers the config of a SwinUNETR from the shapes of its transformer."""
    tables = {match.groups(): value for name, value in tensors.items() if (match := SWIN_BLOCK.fullmatch(name))}
    stages = [[value for (stage, _), value in tables.items() if stage == str(n)] for n in range(1, 5)]
    if not all(stages):
        raise BadInput(f"{where}: a SwinUNETR with {sum(map(bool, stages))} stages; supported are four")
    window = round((len(stages[0][0]) ** (1 / 3) + 1) / 2)
    return swinunetr.Config.model_validate(
        {
            "feature_size": len(tensors[SWIN_EMBEDDING]),
            "depths": [len(stage) for stage in stages],
            "num_heads": [stage[0].shape[1] for stage in stages],
            "window_size": window,
        }
    )


def _infer_segresnet(tensors: Mapping[str, Tensor]) -> segresnet.Config:
    """Infers the config of a SegResNet; its group norm has no running moments, a batch norm has."""
    layers = [match.groups() for name in tensors if (match := SEGRESNET_BLOCK.fullmatch(name))]
    levels = 1 + max((int(level) for level, _ in layers), default=0)
    has_moments = any(name.endswith("running_mean") for name in tensors)
    return segresnet.Config(
        init_filters=len(tensors[SEGRESNET_STEM]),
        blocks_down=tuple(sum(level == str(n) for level, _ in layers) for n in range(levels)),
        norm="batch" if has_moments else "group",
    )
