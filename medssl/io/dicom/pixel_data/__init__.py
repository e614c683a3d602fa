"""Pixel data of DICOM files: encodings, decoders in processes of their own, values in physical units."""
