"""Exports reviewed results as DICOM SEG and SR, PDF and CSV. Does not import torch."""
