"""Pixel data of DICOM files: encodings, decoders in a child process, and values in physical units."""
