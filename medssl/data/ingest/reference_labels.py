"""Reference labels: the labels as they were drawn, on the scanner's grid, against which predictions are scored."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medssl.data.classes import IGNORE_INDEX, Classes
from medssl.data.ingest.dataset_layouts import discover_dataset
from medssl.data.ingest.deidentification import private_dir, redact_warnings
from medssl.data.ingest.prepare_case import read_recorded_source
from medssl.data.ingest.source import Source
from medssl.data.ingest.structures.read_label import read_label
from medssl.data.manifest import Manifest
from medssl.data.store_metadata import StoreMetadata
from medssl.errors import BadInput, Message, list_names
from medssl.io.images import is_image
from medssl.volume import Volume


@dataclass(frozen=True)
class References:
    """Labelled cases by name.

    Attributes:
        path: The manifest or the folder of the labels.
        sources: The files of each labelled case.
        classes: The classes of the labels.
        unlabelled: Cases that are known to have no label; they are left out of the scores.
        hidden: Whether the names of the files are private, so that errors and warnings must not show them.
    """

    path: Path
    sources: Mapping[str, Source]
    classes: Classes = field(default_factory=lambda: Classes({}))
    unlabelled: frozenset[str] = frozenset()
    hidden: bool = False

    @classmethod
    def read(cls, path: Path) -> "References":
        """Lists the labels of a manifest.csv, of a folder of labels named after the cases, or of a data set."""
        if path.is_file():
            return _read_manifest(path)
        if not path.is_dir():
            raise BadInput(f"{path}: no such labels; give a folder of labels or the manifest.csv of a store")
        label_files = [file for file in sorted([*path.glob("*"), *path.glob("*/labels.*")]) if is_image(file)]
        if label_files:
            by_case = {_case_name(file): file for file in label_files}
            return cls(path, {case: Source(case, case, (), (), file) for case, file in by_case.items()})
        layout = discover_dataset(path)
        metadata = StoreMetadata(labels=layout.labels, present_labels=layout.present_labels, regions=layout.regions)
        return cls(path, {s.id: s for s in layout.sources if s.label}, Classes.from_metadata(metadata))

    def select_labelled(self, cases: Sequence[str]) -> list[str]:
        """Returns the cases that have a label.

        Raises:
            BadInput: Some cases are neither labelled nor known to be unlabelled; the message lists them.
        """
        unknown = [case for case in cases if case not in self.sources and case not in self.unlabelled]
        if unknown:
            raise BadInput(
                f"{self.path}: no label for {list_names(unknown)}; add labels named after the cases, or predict fewer"
                " cases"
            )
        return [case for case in cases if case in self.sources]

    def read_label(self, case: str, image: Volume) -> Volume:
        """Reads the label of a case, which must be on the grid of the image.

        Returns:
            The label; voxels that were not labelled have a negative value.
        """
        with redact_warnings(case, self.hidden, self.path.parent):
            try:
                label = read_label(self.sources[case], image)
            except BadInput as error:
                raise BadInput(Message("{case}: {reason}", case=case, reason=error.message)) from None
        ignored = self.classes.ignore_label
        return label if ignored is None else _mark_ignored(label, ignored)


def _mark_ignored(label: Volume, ignored: int) -> Volume:
    voxels = np.where(label.voxels == ignored, np.int16(IGNORE_INDEX), label.voxels.astype(np.int16))
    return replace(label, voxels=voxels)


def _case_name(path: Path) -> str:
    """Returns the case of a label file, which is named NAME.nii.gz or NAME/labels.nii.gz."""
    stem = re.sub(r"\.(nii|nii\.gz|nrrd|mha|mhd)$", "", path.name, flags=re.IGNORECASE)
    return path.parent.name if stem == "labels" else stem


def _read_manifest(path: Path) -> References:
    """Returns the files that the labelled cases of a store were prepared from, as their records state them."""
    manifest, metadata = Manifest.read(path), StoreMetadata.read(path.parent)
    is_hidden = bool(metadata.key_fingerprint)
    records = (private_dir(path.parent) if is_hidden else path.parent) / "records"
    labelled = manifest.with_labels().cases
    if not labelled:
        raise BadInput(f"{path}: no case of this store has a label; give a folder of labels")
    sources = {case.id: read_recorded_source(records, case.id) for case in labelled}
    if missing := [case for case, source in sources.items() if source is None]:
        raise BadInput(f"{records}: has no record of {missing[0]}; restore the folder, or ingest the scans again")
    unlabelled = frozenset(case.id for case in manifest.cases if not case.label)
    present = {case: source for case, source in sources.items() if source}
    return References(path, present, Classes.from_metadata(metadata), unlabelled, is_hidden)
