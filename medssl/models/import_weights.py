"""Adopting: from a checkpoint of nnU-Net or nnssl, or a MONAI bundle, to a closed run that a finetuning starts from."""

from pathlib import Path

from pydantic import Field

from medssl.data.normalization import Recipe
from medssl.errors import BadInput
from medssl.files import sha256
from medssl.models.provenance import contract
from medssl.models.trained_model import Network
from medssl.nn.executor import Triple
from medssl.nn.interop import monai_bundle as bundle
from medssl.nn.interop import state_dict_names as keymap
from medssl.nn.interop import weight_transfer as transfer
from medssl.run import Run
from medssl.settings import Settings

LEAST = 64  # voxels a side of the crop that is written down; a finetuning chooses its own


class Adopt(Settings):
    """Which file becomes which run, and what its owner allows."""

    file: Path
    run: Path
    licence: str = Field(min_length=1)
    strides: tuple[int | Triple, ...] | None = None


def adopt(settings: Adopt) -> tuple[Run, transfer.Ledger]:
    """A closed run with the encoder of nnU-Net's residual U-Net or a bundle's network, and the fate of every tensor.

    nnU-Net feeds z-scores and medssl intensities in [0, 1]. The norm behind the first convolution takes out a scan's
    scale, and its shift but for what the zeros padded around a crop add: so its weights hold for every recipe's range.
    A bundle's network saw values as that bundle scaled them: the finetuning has to make up for the difference.
    """
    adopted = _adopted(settings)
    encoder = adopted.encoder
    i, j, k = (-(-LEAST // c) * c for c in encoder.cell)
    network = Network(
        encoder=adopted.choice, in_channels=encoder.in_channels, recipe=Recipe(), spacing_mm=None, crop=(i, j, k)
    )
    weights = settings.file / bundle.WEIGHTS if settings.file.is_dir() else settings.file
    source = {"file": settings.file.name, "sha256": sha256(weights), "licence": settings.licence}
    facts = {"network": network.model_dump(mode="json"), "transfer": adopted.ledger.json()}
    run = Run.create(settings.run, settings, "import", **facts, **contract(encoder, "imported", source))
    transfer.save({"encoder": encoder}, run.path / "weights.safetensors")
    run.close()
    return run, adopted.ledger


def _adopted(settings: Adopt) -> keymap.Adopted:
    if not settings.file.is_dir():
        return keymap.adopt(keymap.read(settings.file), settings.strides, str(settings.file))
    if settings.strides:
        raise BadInput(f"{settings.file}: a MONAI bundle tells its strides itself; leave out --strides")
    return bundle.adopt(settings.file)
