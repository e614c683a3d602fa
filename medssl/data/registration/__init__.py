"""Registration of scans to an atlas and what is derived from it."""
