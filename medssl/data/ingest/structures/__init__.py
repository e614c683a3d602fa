"""Labels from structures of RTSTRUCT and SEG files, and from boxes and points."""
