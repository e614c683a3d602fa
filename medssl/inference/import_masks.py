"""Foreign: what another tool predicted, as a prediction that is evaluated, compared, reviewed and delivered as ours."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medssl.data.ingest import dataset_layouts as layouts
from medssl.errors import BadInput
from medssl.inference.connected_findings import find
from medssl.inference.predictor import Prediction
from medssl.io import images
from medssl.io.voxels import present
from medssl.volume import Volume

NAMED = "dataset.json"
TIES = 1e-4  # share of voxels in which two classes may be so alike that rounding decides
Share = Float[np.ndarray, "i j k"]


@dataclass(frozen=True)
class Foreign:
    """A folder with one mask a case, named CASE.nii.gz as nnU-Net writes it, or CASE_*.nii.gz or in a folder CASE as
    MONAI bundles do; and the names of the classes in it.

    Beside a mask may lie what `nnUNetv2_predict --save_probabilities` writes: CASE.npz with `probabilities` as
    (class, z, y, x). It must say the same as the mask. Without it, every voxel and every finding is sure.
    """

    masks: dict[str, Path]
    names: Mapping[int, str]

    @classmethod
    def of(cls, folder: Path, names: str, cases: list[str]) -> "Foreign":
        """The masks of `cases` under `folder`; `names` are of the classes 1, 2, 3 ..., else dataset.json tells them."""
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder; give the one that the masks were written to")
        named = dict(enumerate(names.split(","), 1)) if names else _names(folder / NAMED)
        files = sorted(path for path in folder.rglob("*") if images.is_image(path) and path.is_file())
        masks = {case: path for case in cases if (path := _mask(case, files, folder, cases))}
        if not masks:
            told = ", ".join(path.name for path in files[:3]) or "no mask"
            raise BadInput(f"{folder}: a mask is named after its case, as {cases[0]}.nii.gz; here is {told}")
        return cls(masks, named)

    def predicted(self, image: Volume, case: str) -> Prediction:
        """What the mask of a case says, on its image's grid; its axes may be others (RAS for LPS), its grid may not."""
        path = self.masks[case]
        mask = images.read(path, label=True)
        unknown = sorted(set(present(mask.voxels)) - {0, *self.names})
        if unknown:
            raise BadInput(f"{path}: holds {unknown}, named are {list(self.names)}; name all classes with --names")
        labels = _on(mask, image, path)
        sure, doubt, foreground = (
            _on(replace(mask, voxels=voxels, unit="probability"), image, path) for voxels in _said(path, mask)
        )
        found = find(labels, sure.voxels, doubt.voxels, case, self.names)
        return Prediction(labels, foreground, found)


def _names(path: Path) -> dict[int, str]:
    """The classes that nnU-Net's dataset.json names, but the one that it ignores."""
    if not path.is_file():
        raise BadInput(f"{path}: not there to name the classes; give --names NAME,NAME of the classes 1, 2, ...")
    try:
        told = layouts.class_names(json.loads(path.read_text(encoding="utf-8"))["labels"])[0]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path}: names no classes ({error!r}); give --names NAME,NAME of the classes 1, 2, ..."
        ) from None
    return {value: name for value, name in told.items() if name != "ignore"}


def _mask(case: str, files: list[Path], folder: Path, cases: list[str]) -> Path | None:
    """The file that is named after a case, or lies in a folder of its name, or has its name before an underscore."""
    bare = channel[1] if (channel := layouts.CHANNEL.match(case)) else case
    longer = tuple(other for other in cases if other.startswith(f"{case}_"))
    alike = [
        [path for path in files if layouts.stem(path) in (case, bare)],
        [path for path in files if path.parent.name == case and path.parent != folder],
        [path for path in files if path.name.startswith(f"{case}_") and not path.name.startswith(longer)],
    ]
    found = next((paths for paths in alike if paths), [])
    if len(found) > 1:
        told = ", ".join(str(path.relative_to(folder)) for path in found[:3])
        raise BadInput(f"{folder}: {len(found)} masks of {case} ({told}); leave the one that holds all its classes")
    return found[0] if found else None


def _said(path: Path, mask: Volume) -> tuple[Share, Share, Share]:
    """How sure it is of its class, the entropy of all, how sure that it is not background: nnU-Net's, or 0 and 1."""
    beside = path.with_name(f"{layouts.stem(path)}.npz")
    if not beside.is_file():
        sure = np.ones(mask.shape, np.float32)
        return sure, 1 - sure, (mask.voxels > 0).astype(np.float32)
    try:
        p = np.load(beside)["probabilities"].astype(np.float32).transpose(0, 3, 2, 1)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{beside}: no probabilities of nnU-Net ({error}); remove it, the mask is enough") from None
    if p.shape[1:] != mask.shape or (p.argmax(0) != mask.voxels).mean() > TIES:
        raise BadInput(f"{beside}: says other classes than {path.name}; remove it, the mask is enough")
    entropy = sum(-c * np.log(np.maximum(c, 1e-9)) for c in p) / np.float32(np.log(len(p)))
    return p.max(0), entropy, 1 - p[0]


def _on(volume: Volume, image: Volume, path: Path) -> Volume:
    try:
        return volume.oriented(image.orientation()).require_same_grid(image)
    except ValueError as error:
        raise BadInput(f"{path}: does not lie on its image's grid: {error}") from None
