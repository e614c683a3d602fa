"""Readers and writers of medical image files: DICOM, NIfTI, NRRD and MetaImage."""
