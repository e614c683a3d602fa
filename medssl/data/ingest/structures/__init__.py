"""Structures of RTSTRUCT and SEG files as labels: the choice of the user, and the series that they belong to."""
