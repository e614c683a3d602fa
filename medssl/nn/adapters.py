"""What the encoders taken from MONAI have in common."""

from typing import Any, Literal

from medssl.nn.norms import groups

MonaiNorm = Literal["instance", "group", "batch"]


def norm_of(norm: MonaiNorm, channels: int) -> tuple[str, dict[str, Any]]:
    """A norm as MONAI asks for it, for networks whose widths are multiples of `channels`."""
    kinds: dict[str, dict[str, Any]] = {
        "instance": {"affine": True},
        "group": {"num_groups": groups(channels), "affine": True},
        "batch": {},
    }
    return norm, kinds[norm]
