"""DICOM networking (DIMSE) through pynetdicom: receives files, lists the studies that arrived, and sends files."""
