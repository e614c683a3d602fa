"""What SEG, SR and RTSTRUCT share: codes, structures and provenance; and the writer of RTSTRUCT."""
