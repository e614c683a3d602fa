"""Reviewed predictions, as documents that leave: DICOM SEG and SR, PDF, CSV. No torch."""
