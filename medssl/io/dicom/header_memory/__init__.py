"""What is remembered of DICOM headers, so that files that have not changed are not read again."""
