"""DICOM in and out: series as volumes, segmentations, structured reports and de-identification."""

from medssl.io.dicom.reader import Series, read

__all__ = ["Series", "read"]
