"""Imports masks of other tools as predictions, which can then be evaluated, compared, reviewed and exported."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medssl.data.class_kinds import propose_kinds
from medssl.data.ingest.layouts.dataset_json import parse_class_names
from medssl.data.ingest.layouts.evidence import image_stem
from medssl.data.ingest.layouts.naming_scheme import CHANNEL
from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.finding import FindingKind
from medssl.inference.connected_findings import extract_findings
from medssl.inference.streaming.case_stream import Prediction
from medssl.io import images
from medssl.io.label_table import read_label_names
from medssl.io.voxels import list_label_values
from medssl.volume import Volume

DATASET_JSON = "dataset.json"
MAX_TIED_FRACTION = 1e-4  # fraction of voxels in which two classes may be so close that rounding decides
VoxelMap = Float[np.ndarray, "i j k"]


@dataclass(frozen=True)
class ExternalMasks:
    """The masks of each case, and the names of their classes.

    A mask is named CASE.nii.gz as by nnU-Net, CASE_*.nii.gz, or lies in a folder CASE as by MONAI bundles. Several
    files in a folder CASE are one structure each, as by TotalSegmentator. The file CASE.npz of
    `nnUNetv2_predict --save_probabilities` may lie next to a mask; its `probabilities` (class, z, y, x) must agree with
    the mask. Without probabilities, every voxel and finding has a score of 1.
    """

    masks: dict[str, tuple[Path, ...]]
    names: Mapping[int, str]
    kinds: Mapping[int, FindingKind]

    @classmethod
    def from_folder(
        cls, folder: Path, names: str, cases: list[str], kinds: Mapping[str, FindingKind] | None = None
    ) -> "ExternalMasks":
        """Finds the masks of cases in a folder.

        Args:
            folder: The folder with the masks, which may lie in subfolders.
            names: The names of the classes 1, 2, 3, ..., separated by commas; empty reads them from dataset.json, else
                from the names of the structures' files, else from the header of a mask.
            cases: The ids of the cases.
            kinds: The kinds of classes by name, where the names do not say it.
        """
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder; give the folder with the masks")
        files = sorted(path for path in folder.rglob("*") if images.is_image(path) and path.is_file())
        masks = {case: paths for case in cases if (paths := _find_masks(case, files, folder, cases))}
        if not masks:
            examples = ", ".join(path.name for path in files[:3]) or "no mask"
            raise BadInput(f"{folder}: masks must be named after their case, as {cases[0]}.nii.gz; found {examples}")
        class_names = dict(enumerate(names.split(","), 1)) if names else _find_class_names(folder, masks)
        if unknown := sorted(set(kinds or {}) - set(class_names.values())):
            classes = ", ".join(class_names.values())
            raise BadInput(f"kinds: {', '.join(unknown)} is no class of {folder}; its classes are {classes}")
        declared = {value: kinds[name] for value, name in class_names.items() if kinds and name in kinds}
        return cls(masks, class_names, propose_kinds(class_names) | declared)

    def to_prediction(self, image: Volume, case: str) -> Prediction:
        """Returns the mask of a case as a prediction.

        Args:
            image: The image of the case. The mask must have the same grid, in any axis order: RAS for LPS.
            case: The id of the case.
        """
        path, *others = self.masks[case]
        mask = _merge_structures(self.masks[case], self.names) if others else images.read(path, label=True)
        unknown = sorted(set(list_label_values(mask.voxels)) - {0, *self.names})
        if unknown:
            raise BadInput(f"{path}: holds {unknown}, but only {list(self.names)} have names; name all with --names")
        labels = _place_on_grid(mask, image, path)
        confidence, entropy, foreground = (
            _place_on_grid(replace(mask, voxels=voxels, unit="probability"), image, path)
            for voxels in _read_confidence(path, mask)
        )
        organs = frozenset(value for value, kind in self.kinds.items() if kind == "organ")
        findings = extract_findings(labels, confidence.voxels, entropy.voxels, case, self.names, organs=organs)
        return Prediction(labels, foreground, findings)


def join_channels(scans: Sequence[ScanRef]) -> list[ScanRef]:
    """Returns the scans with CASE_0000, CASE_0001, ... joined to a scan CASE with these channels, as of nnU-Net.

    A file without such a sibling stays a scan of its own.
    """
    channels: dict[str, list[ScanRef]] = {}
    for scan in sorted(scans, key=lambda scan: scan.case):
        match = CHANNEL.match(scan.case)
        channels.setdefault(match[1] if match else scan.case, []).append(scan)
    return [_join(case, members) if len(members) > 1 else members[0] for case, members in channels.items()]


def _join(case: str, members: Sequence[ScanRef]) -> ScanRef:
    """Returns the scans of a case as one with channels."""
    modalities = tuple(modality for member in members for modality in member.modalities)
    read = partial(_read_channels, case, members)
    return replace(members[0], case=case, read=read, modalities=modalities, series=None)


def _read_channels(case: str, members: Sequence[ScanRef]) -> Volume:
    """Reads the channels of a case, which lie on one grid."""
    volumes = [member.read() for member in members]
    try:
        placed = [volume.reorient(volumes[0].orientation()).require_same_grid(volumes[0]) for volume in volumes]
    except ValueError as error:
        raise BadInput(f"{case}: its channels do not lie on one grid: {error}; resample them to the first") from None
    unit = volumes[0].unit if len({volume.unit for volume in volumes}) == 1 else "a.u."
    return replace(volumes[0], voxels=np.stack([volume.voxels.astype(np.float32) for volume in placed]), unit=unit)


def _find_class_names(folder: Path, masks: Mapping[str, tuple[Path, ...]]) -> dict[int, str]:
    """Returns the class names of dataset.json, of the structures' files, or of the header of a mask."""
    if not (folder / DATASET_JSON).is_file():
        if structures := sorted({image_stem(path) for paths in masks.values() if len(paths) > 1 for path in paths}):
            return dict(enumerate(structures, 1))
        first = next(iter(masks.values()))[0]
        if images.is_nifti(first) and (names := read_label_names(first)):
            return names
    return _read_class_names(folder / DATASET_JSON)


def _merge_structures(paths: Sequence[Path], names: Mapping[int, str]) -> Volume:
    """Merges files of one structure each to one mask; where two overlap, the smaller one is kept.

    Raises:
        BadInput: No file is named after a class, a file holds several values, or the grids differ.
    """
    values = {name: value for value, name in names.items()}
    structures = {values[image_stem(path)]: path for path in paths if image_stem(path) in values}
    if not structures:
        raise BadInput(
            f"{paths[0].parent}: none of its {len(paths)} masks is named after a class ({', '.join(values)}); name the"
            " files of the structures with --names, or keep the one mask with all classes"
        )
    merged: Volume | None = None
    sizes = np.full(max(structures) + 1, np.iinfo(np.int64).max)
    for value, path in structures.items():
        mask = images.read(path, label=True)
        if len(list_label_values(mask.voxels)) > 2:
            raise BadInput(f"{path}: holds several classes; keep one mask with all classes, or one file a structure")
        merged = merged or replace(mask, voxels=np.zeros(mask.shape, np.int16))
        inside = _place_on_grid(mask, merged, path).voxels > 0
        sizes[value], taken = np.count_nonzero(inside), merged.voxels[inside]
        merged.voxels[inside] = np.where(sizes[taken] > sizes[value], value, taken)
    assert merged is not None
    return merged


def _read_class_names(path: Path) -> dict[int, str]:
    """Reads the class names from nnU-Net's dataset.json, without the class `ignore`."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file; name the classes 1, 2, ... with --names NAME,NAME")
    try:
        names = parse_class_names(json.loads(path.read_text(encoding="utf-8"))["labels"])[0]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path}: has no class names ({error!r}); name the classes 1, 2, ... with --names NAME,NAME"
        ) from None
    return {value: name for value, name in names.items() if name != "ignore"}


def _find_masks(case: str, files: list[Path], folder: Path, cases: list[str]) -> tuple[Path, ...]:
    """Finds the masks of a case: CASE.nii.gz, else the files in a folder CASE, else CASE_*.nii.gz."""
    bare = channel[1] if (channel := CHANNEL.match(case)) else case
    longer_ids = tuple(other for other in cases if other.startswith(f"{case}_"))
    candidates = [
        [path for path in files if image_stem(path) in (case, bare)],
        [path for path in files if path.parent.name in (case, bare) and path.parent != folder],
        [path for path in files if path.name.startswith(f"{case}_") and not path.name.startswith(longer_ids)],
    ]
    matches = next((paths for paths in candidates if paths), [])
    if len(matches) > 1 and matches != candidates[1]:
        listing = ", ".join(str(path.relative_to(folder)) for path in matches[:3])
        raise BadInput(f"{folder}: {len(matches)} masks of {case} ({listing}); keep the one with all its classes")
    return tuple(matches)


def _read_confidence(path: Path, mask: Volume) -> tuple[VoxelMap, VoxelMap, VoxelMap]:
    """Returns the probability of the mask's class, the normalized entropy and the foreground probability.

    They come from nnU-Net's probabilities if there are any; otherwise they are 0 or 1.
    """
    file = path.with_name(f"{image_stem(path)}.npz")
    if not file.is_file():
        confidence = np.ones(mask.shape, np.float32)
        return confidence, 1 - confidence, (mask.voxels > 0).astype(np.float32)
    try:
        p = np.load(file)["probabilities"].astype(np.float32).transpose(0, 3, 2, 1)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{file}: no nnU-Net probabilities ({error}); remove it, the mask suffices") from None
    if p.shape[1:] != mask.shape or (p.argmax(0) != mask.voxels).mean() > MAX_TIED_FRACTION:
        raise BadInput(f"{file}: disagrees with the classes of {path.name}; remove it, the mask suffices")
    entropy = sum(-c * np.log(np.maximum(c, 1e-9)) for c in p) / np.float32(np.log(len(p)))
    return p.max(0), entropy, 1 - p[0]


def _place_on_grid(volume: Volume, image: Volume, path: Path) -> Volume:
    """Reorders the axes to those of the image; raises BadInput if the grids differ otherwise."""
    try:
        return volume.reorient(image.orientation()).require_same_grid(image)
    except ValueError as error:
        raise BadInput(f"{path}: does not lie on its image's grid: {error}") from None
