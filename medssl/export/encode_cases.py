"""Encodes the images of predictions around their findings, for proposals in the review app."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from pydantic import TypeAdapter

from medssl.files import atomic_folder, check_writable
from medssl.io import nifti
from medssl.predictions_folder import IMAGE, Index, read_findings
from medssl.review.assist.encodings import PROJECTION, locate_encodings, write_encoding
from medssl.volume import Unit, Volume

MARGIN_MM = 30.0
MAX_CHANNELS, MAX_BYTES = 8, 32_000_000  # of the encoding of a case
FIT_CASES, FIT_VOXELS = 8, 5000  # cases, and voxels of each, that the projection is fitted on
Encode = Callable[[Volume], Iterable[Volume]]


@dataclass(frozen=True, eq=False)
class FeatureProjection:
    """Maps features to their principal components, each with the standard deviation 1.

    Args:
        mean: The mean of each feature.
        components: The principal components as columns, divided by their standard deviations.
    """

    mean: Float32[np.ndarray, " c"]
    components: Float32[np.ndarray, "c p"]

    @classmethod
    def fit(cls, samples: Float32[np.ndarray, "n c"]) -> "FeatureProjection":
        """Returns the first principal components of samples."""
        mean = samples.mean(0)
        values, vectors = np.linalg.eigh(np.cov(samples - mean, rowvar=False).reshape(len(mean), len(mean)))
        first = np.argsort(-values)[:MAX_CHANNELS]
        scale = np.sqrt(np.maximum(values[first], 1e-12))
        return cls(mean.astype(np.float32), (vectors[:, first] / scale).astype(np.float32))

    def apply(self, features: Volume) -> Volume:
        """Returns the components of each voxel as channels."""
        centred = features.voxels.astype(np.float32) - self.mean[:, None, None, None]
        return replace(features, voxels=np.einsum("cp,cijk->pijk", self.components, centred))


def encode_predictions(index: Index, encode: Encode) -> Path:
    """Writes an encoding of each case and returns their folder.

    Args:
        index: The predictions.
        encode: Returns the features of a scan at every level, fine to coarse, as `medssl.load_encoder` does.
    """
    folder = locate_encodings(index.folder)
    check_writable(folder)
    samples = [_sample_voxels(_encode_case(index, case, encode)) for case in index.cases[:FIT_CASES]]
    projection = FeatureProjection.fit(np.concatenate(samples))
    with atomic_folder(folder, overwrite=True, is_private=True) as part:
        np.savez(part / PROJECTION, mean=projection.mean, components=projection.components)
        for case in index.cases:
            write_encoding(part / f"{case}.npz", projection.apply(_encode_case(index, case, encode)))
    return folder


def _encode_case(index: Index, case: str, encode: Encode) -> Volume:
    """Returns the finest level of features around the findings of a case that is small enough."""
    folder = index.case_folder(case)
    unit = TypeAdapter(Unit).validate_python(index.units[case])
    levels = list(encode(_crop_to_findings(replace(nifti.read(folder / IMAGE), unit=unit).reorient("RAS"), folder)))
    small = [level for level in levels if np.prod(level.shape) * MAX_CHANNELS * 2 <= MAX_BYTES]
    return (small or levels[-1:])[0]


def _crop_to_findings(image: Volume, folder: Path) -> Volume:
    """Returns the box of all findings with a margin; the whole image if there are none."""
    findings = read_findings(folder)
    if not findings:
        return image
    corners = np.array([point for finding in findings for point in (finding.low_mm, finding.high_mm)], float)
    voxels = image.to_index(corners)
    margin = MARGIN_MM / np.array(image.spacing_mm())
    low = np.clip(np.floor(voxels.min(0) - margin), 0, np.array(image.shape) - 1).astype(int)
    high = np.clip(np.ceil(voxels.max(0) + margin) + 1, low + 1, image.shape).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = low
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return replace(image, voxels=image.voxels[box], affine=image.affine @ shift)


def _sample_voxels(features: Volume) -> Float32[np.ndarray, "n c"]:
    """Returns the features of evenly spread voxels."""
    rows = features.voxels.reshape(len(features.voxels), -1).T
    return rows[:: max(1, len(rows) // FIT_VOXELS)].astype(np.float32)
