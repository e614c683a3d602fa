"""DICOMweb: searches for series (QIDO-RS), retrieves them (WADO-RS) and stores files (STOW-RS) on an archive."""
