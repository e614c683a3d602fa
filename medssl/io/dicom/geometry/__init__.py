"""Geometry of DICOM series: slices are split into volumes, fitted to a regular grid, and checked for lost ends."""
