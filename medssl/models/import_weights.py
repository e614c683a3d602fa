"""Imports a checkpoint of nnU-Net or nnssl, or a MONAI bundle, as a finished run that finetuning can start from."""

from pathlib import Path

from pydantic import Field

from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.files import sha256
from medssl.models.provenance import encoder_metadata
from medssl.models.trained_model import TrainedModel
from medssl.nn.executor import Triple
from medssl.nn.interop import monai_bundle, state_dict_names, weight_transfer
from medssl.run import Run
from medssl.settings import Settings

MIN_PATCH_SIDE = 64  # voxels; the patch size is required metadata, finetuning chooses its own


class ImportConfig(Settings):
    """Settings of `medssl import-weights`."""

    file: Path = Field(description="a checkpoint of nnU-Net or nnssl, or the folder of a MONAI bundle")
    run: Path = Field(description="the run to write: a folder that does not exist yet")
    licence: str = Field(min_length=1, description="the licence of the weights, e.g. CC-BY-4.0")
    strides: tuple[int | Triple, ...] | None = Field(
        None,
        description="stride of each encoder stage along z, y, x, as in nnU-Net; null infers them from the checkpoint",
    )


def import_weights(settings: ImportConfig) -> tuple[Run, weight_transfer.TransferReport]:
    """Writes a finished run that holds the imported encoder.

    nnU-Net trains on z-scores, medssl on intensities in [0, 1]. The norm behind the first convolution removes the scale
    of a scan, and its shift except near zero padding, so these weights are valid for any intensity range. The network
    of a MONAI bundle was trained on values scaled by that bundle; finetuning has to adapt to the difference.

    Returns:
        The run, and the status of every tensor of the file.
    """
    imported = _read_encoder(settings)
    encoder = imported.encoder
    i, j, k = (-(-MIN_PATCH_SIDE // stride) * stride for stride in encoder.patch)
    network = TrainedModel(
        encoder=imported.config,
        in_channels=encoder.in_channels,
        normalization=IntensityNormalization(),
        spacing_mm=None,
        patch_size=(i, j, k),
    )
    weights = settings.file / monai_bundle.WEIGHTS if settings.file.is_dir() else settings.file
    source = {"file": settings.file.name, "sha256": sha256(weights), "licence": settings.licence}
    metadata = {"network": network.model_dump(mode="json"), "transfer": imported.report.to_json()}
    run = Run.create(settings.run, settings, "import", **metadata, **encoder_metadata(encoder, "imported", source))
    weight_transfer.save_parts({"encoder": encoder}, run.path / "weights.safetensors")
    run.close()
    return run, imported.report


def _read_encoder(settings: ImportConfig) -> state_dict_names.ImportedEncoder:
    """Reads the encoder of a checkpoint file or of a bundle folder."""
    if not settings.file.is_dir():
        tensors = state_dict_names.read_checkpoint(settings.file)
        return state_dict_names.import_encoder(tensors, settings.strides, str(settings.file))
    if settings.strides:
        raise BadInput(f"{settings.file}: a MONAI bundle defines its own strides; leave out --strides")
    return monai_bundle.import_bundle(settings.file)
