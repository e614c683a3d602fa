"""What a folder of scans holds: cases, classes, and a ledger row for each file that is in no case."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from medssl.data.ingest.file_ledger import LedgerRow
from medssl.data.ingest.layouts.metadata_tables import CaseMetadata
from medssl.data.ingest.source import Source
from medssl.errors import BadInput, Message
from medssl.io.image_headers import ImageHeader, read_header
from medssl.io.images import is_image


@dataclass(frozen=True)
class DatasetLayout:
    """What a folder holds.

    Attributes:
        sources: The cases to read.
        rows: A ledger row for each file that is not part of a case.
        labels: Class number to name.
        present_labels: Case to the classes that were drawn in it.
        regions: Name of a union of classes to its classes.
        notes: What the terminal shows about the files.
    """

    sources: list[Source] = field(default_factory=list)
    rows: list[LedgerRow] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    present_labels: dict[str, list[int]] = field(default_factory=dict)
    regions: dict[str, list[int]] = field(default_factory=dict)
    notes: list[Message] = field(default_factory=list)

    @property
    def files(self) -> set[Path]:
        """Every file that the layout accounts for."""
        return {f for source in self.sources for f in source.files} | {Path(row.path) for row in self.rows}

    def add(self, part: "DatasetLayout") -> None:
        """Adds the cases and rows of a part of the folder.

        Raises:
            BadInput: A number means another class in the part.
        """
        for number, name in part.labels.items():
            if self.labels.get(number, name) != name:
                raise BadInput(
                    f"the folder holds data sets in which class {number} is {self.labels[number]!r} and {name!r}; "
                    "ingest each into a store of its own"
                )
        self.sources.extend(part.sources)
        self.rows.extend(part.rows)
        self.labels.update(part.labels)
        self.present_labels.update(part.present_labels)
        self.regions.update(part.regions)
        self.notes.extend(part.notes)


@dataclass(frozen=True)
class FileTree:
    """The files below a folder that no layout has accounted for yet.

    Attributes:
        root: The folder of scans.
        remaining: The files.
    """

    root: Path
    remaining: frozenset[Path]

    @cached_property
    def image_files(self) -> tuple[Path, ...]:
        """The remaining image files, in order."""
        return tuple(sorted(f for f in self.remaining if is_image(f)))

    @cached_property
    def relative_names(self) -> Mapping[Path, str]:
        """The path of each remaining file below the folder, with slashes."""
        prefix = len(str(self.root / "_")) - 1
        return {f: str(f)[prefix:].replace(os.sep, "/") for f in sorted(self.remaining, key=lambda path: path.parts)}

    @cached_property
    def files_in(self) -> Mapping[Path, list[Path]]:
        """The remaining files of each folder, in order."""
        folders: dict[Path, list[Path]] = {}
        for file in sorted(self.remaining):
            folders.setdefault(file.parent, []).append(file)
        return folders

    @cached_property
    def _headers(self) -> dict[Path, ImageHeader | None]:
        return {}

    def header(self, path: Path) -> ImageHeader | None:
        """Returns the grid of an image file, which is read once."""
        if path not in self._headers:
            self._headers[path] = read_header(path)
        return self._headers[path]

    def without(self, files: Iterable[Path]) -> "FileTree":
        """Returns the tree without some of its files."""
        remaining = self.remaining.difference(files)
        return self if len(remaining) == len(self.remaining) else replace(self, remaining=remaining)


def apply_metadata(source: Source, metadata: Mapping[str, CaseMetadata], table: str) -> Source:
    """Returns the source with the values that a table has for it.

    Args:
        source: The case.
        metadata: Values by case.
        table: What the terminal calls the table if it names the patient.
    """
    values = {n: v for n, v in asdict(metadata.get(source.id, CaseMetadata())).items() if v not in ("", None)}
    if "patient" in values:
        values["patient_from"] = table
    return replace(source, **values)
