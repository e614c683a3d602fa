"""References: the labels, as they were drawn, that predictions are measured against."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medssl.data.classes import UNKNOWN, Classes
from medssl.data.ingest import dataset_layouts as layouts
from medssl.data.ingest.deidentification import hushed, real_rows
from medssl.data.ingest.read_source import read_label
from medssl.data.ingest.source import Source
from medssl.data.manifest import Manifest
from medssl.data.store import Card
from medssl.errors import BadInput
from medssl.io.images import is_image
from medssl.volume import Volume


@dataclass(frozen=True)
class References:
    """Labelled cases by name, and what is told of their classes.

    `unlabelled` are cases that are known to have no label, and so are left out of what is measured; where names are
    `hidden`, what reading a label says tells none.
    """

    place: Path
    sources: Mapping[str, Source]
    classes: Classes = field(default_factory=lambda: Classes({}))
    unlabelled: frozenset[str] = frozenset()
    hidden: bool = False

    @classmethod
    def read(cls, place: Path) -> "References":
        """From a store's manifest.csv, a folder of labels named as the cases are, or a data set with its images."""
        if place.is_file():
            return _of_manifest(place)
        if not place.is_dir():
            raise BadInput(f"{place}: no such labels; give a folder of labels or a store's manifest.csv")
        named = {_case(path): path for path in sorted([*place.glob("*"), *place.glob("*/labels.*")]) if is_image(path)}
        if named:
            return cls(place, {case: Source(case, case, (), (), path) for case, path in named.items()})
        found = layouts.find(place)
        card = Card(labels=found.labels, present_labels=found.present, regions=found.regions)
        return cls(place, {s.id: s for s in found.sources if s.label}, Classes.of(card))

    def measured(self, cases: Sequence[str]) -> list[str]:
        """The cases that have a label; those of which nothing is known are refused, all at once."""
        lacking = [case for case in cases if case not in self.sources and case not in self.unlabelled]
        if lacking:
            some = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
            raise BadInput(
                f"{self.place}: no label for {some}; add them, named as the cases are, or predict fewer cases"
            )
        return [case for case in cases if case in self.sources]

    def label(self, case: str, image: Volume) -> Volume:
        """A case's label, which must stand on the image's grid; negative where nobody labelled."""
        with hushed(case, self.hidden, self.place.parent):
            try:
                drawn = read_label(self.sources[case], image)
            except BadInput as error:
                raise BadInput(f"{case}: {error}") from None
        blank = self.classes.unlabelled
        return drawn if blank is None else _unknown(drawn, blank)


def _unknown(drawn: Volume, blank: int) -> Volume:
    return replace(drawn, voxels=np.where(drawn.voxels == blank, np.int16(UNKNOWN), drawn.voxels.astype(np.int16)))


def _case(path: Path) -> str:
    """labels/NAME.nii.gz and NAME/labels.nii.gz are both of case NAME."""
    stem = re.sub(r"\.(nii|nii\.gz|nrrd|mha|mhd)$", "", path.name, flags=re.IGNORECASE)
    return path.parent.name if stem == "labels" else stem


def _of_manifest(path: Path) -> References:
    """The files that each case of a store was read from, found again through its ledger."""
    manifest, card = Manifest.read(path), Card.read(path.parent)
    files: dict[str, set[str]] = {}
    for row in real_rows(path.parent):
        if row.status == "used" and row.case:
            files.setdefault(row.case, set()).add(row.path)
    used = [file for case in manifest.labelled().cases for file in files.get(case.id, ())]
    if not used:
        raise BadInput(f"{path}: no case of this store has a label; give a folder of labels")
    found = layouts.find(Path(os.path.commonpath([str(Path(file).parent) for file in used])))
    by_files = {frozenset(map(str, s.files)): s for s in found.sources if s.label}
    known = {case: by_files.get(frozenset(paths)) for case, paths in files.items()}
    patient = {case.id: case.patient for case in manifest.cases}
    bare = frozenset(case.id for case in manifest.cases if not case.label)
    sources = {case: replace(s, id=case, patient=patient[case]) for case, s in known.items() if s and case in patient}
    return References(path, sources, Classes.of(card), bare, bool(card.key))
