"""Encoders that others publish, with address, checksum and licence; see `medssl fetch-weights`."""

from dataclasses import dataclass
from pathlib import Path

from medssl.data.public.download import ByteProgress, download_file
from medssl.errors import BadInput

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class PublishedWeights:
    """A checkpoint on the hub.

    Attributes:
        repository: Owner and name of the repository.
        file: Path of the checkpoint in it.
        sha256: SHA-256 of the checkpoint.
        licence: Licence of the weights.
        description: What the encoder is, and what it was pretrained on.
    """

    repository: str
    file: str
    sha256: str
    licence: str
    description: str

    def url(self, mirror: str) -> str:
        """Returns the address of the checkpoint on the hub or on a mirror with the same paths."""
        return f"{mirror.rstrip('/')}/{self.repository}/resolve/main/{self.file}"


# Wald et al., An OpenMind for 3D medical vision self-supervised learning, 2025, https://arxiv.org/abs/2412.17041.
PUBLISHED = {
    "openmind-mae-resenc": PublishedWeights(
        "MIC-DKFZ/ResEncL-OpenMind-MAE",
        "checkpoint_final.pth",
        "7a847af785635335c00e711d16ff4d225d86ecd5992b14c059df2b520e3ee933",
        "CC-BY-4.0",
        "ResEnc-L of nnU-Net, masked autoencoder on 114,000 MR volumes of head and neck",
    ),
    "openmind-mae-primus": PublishedWeights(
        "MIC-DKFZ/PrimusM-OpenMind-MAE",
        "checkpoint_final.pth",
        "b866ac5f61d7e90d3a6cbb00a759ffc9d73beb5e63baa6b3cd654671ebc9a552",
        "CC-BY-4.0",
        "Primus-M, masked autoencoder on 114,000 MR volumes of head and neck",
    ),
}


def fetch_weights(name: str, out: Path, on_progress: ByteProgress, mirror: str = HUB) -> Path:
    """Downloads a checkpoint, unless it is there already, and compares its checksum.

    Args:
        name: One of `PUBLISHED`.
        out: Parent folder of the file.
        on_progress: Called with the bytes so far and in total.
        mirror: Address of the hub, or of a mirror with the same paths.

    Returns:
        The path of the checkpoint.

    Raises:
        BadInput: There are no weights of that name, the server does not answer, or the checksum differs.
    """
    if name not in PUBLISHED:
        raise BadInput(f"{name!r}: no weights of that name; choose one of {', '.join(PUBLISHED)}")
    weights = PUBLISHED[name]
    path = out / f"{name}{Path(weights.file).suffix}"
    out.mkdir(parents=True, exist_ok=True)
    download_file(weights.url(mirror), path, weights.sha256, on_progress, algorithm="sha256")
    return path
