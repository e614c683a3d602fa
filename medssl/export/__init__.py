"""Export of reviewed results as DICOM SEG and SR, PDF and CSV. No torch."""
