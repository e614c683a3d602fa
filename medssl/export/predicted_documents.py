"""Writes the documents of predictions without a review: marked as not verified, one folder per case."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from medssl.data.ingest.read_source import ScanRef
from medssl.errors import BadInput
from medssl.export.export import FINDINGS, TABLE, CaseExporter, ExportOptions, describe_prediction
from medssl.export.findings_table import FindingRow, write_table
from medssl.export.source_series import read_all_series
from medssl.files import atomic_folder, check_writable, is_disk_full
from medssl.io.images import is_image
from medssl.predictions_folder import Index

OPTIONS = ExportOptions(include_unsigned=True, is_one_page=True)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedDocuments:
    """A folder with the documents of predicted cases; the folder of a case is complete or absent.

    Args:
        folder: The folder.
    """

    folder: Path
    _rows: dict[str, list[FindingRow]] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, resume: bool) -> "PredictedDocuments":
        """Returns the documents of a new folder or, with `resume`, of one that may have some cases already.

        Raises:
            BadInput: If the folder exists and may not be continued, or cannot be written.
        """
        check_writable(folder)
        if folder.exists() and not resume:
            raise BadInput(f"{folder}: exists already; choose another --dicom-out, or add --resume")
        return cls(folder)

    def add_scan(self, index: Index, scan: ScanRef) -> None:
        """Writes the documents of a case unless they are there, and the table of all cases so far.

        A case that cannot be exported is left out with the reason. A scan that is no DICOM series has no SEG and SR.

        Args:
            index: The predictions.
            scan: The scan of one of its cases.

        Raises:
            BadInput: If the folder holds the documents of another prediction of the case.
            OSError: If the disk is full.
        """
        case = scan.case
        if (self.folder / case).exists():
            self._rows[case] = self._read_rows(index, case)
        else:
            try:
                files = scan.list_files()
                series = None if not files or is_image(files[0]) else read_all_series(files)
                with atomic_folder(self.folder / case, is_private=True) as part:
                    self._rows[case] = CaseExporter(index, case, (), OPTIONS).write(part, series)
            except (BadInput, OSError) as error:
                if is_disk_full(error):
                    raise
                self._reasons[case] = str(error)
                log.warning("%s: no documents: %s", case, error)
                return
        write_table(self.folder / TABLE, [row for rows in self._rows.values() for row in rows])

    def require_complete(self) -> None:
        """Raises BadInput if a case has no documents."""
        if self._reasons:
            case, reason = next(iter(self._reasons.items()))
            raise BadInput(f"{self.folder}: {len(self._reasons)} cases have no documents: {case}: {reason}")

    def _read_rows(self, index: Index, case: str) -> list[FindingRow]:
        """Reads the findings of a case that has its documents."""
        path = self.folder / case / FINDINGS
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if content.get("prediction") != describe_prediction(index, case):
            raise BadInput(f"{path.parent}: holds the documents of another prediction; choose another --dicom-out")
        rows: list[FindingRow] = content["findings"]
        return rows
