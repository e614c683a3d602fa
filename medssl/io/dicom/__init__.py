"""Reads and writes DICOM: image series, segmentations and structured reports; also removes identifying data."""

from medssl.io.dicom.reader import Series, read

__all__ = ["Series", "read"]
