"""The one door for files from outside: DICOM, NIfTI, NRRD, MHA."""
