"""Defines the long and the short diameter of a lesion that a reader measures in one plane.

Eisenhauer et al., "New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1)", 2009
(https://doi.org/10.1016/j.ejca.2008.10.026): the longest diameter in the plane, and the one perpendicular to it.
"""

import math
from dataclasses import dataclass
from typing import Literal

from medssl.finding import Point

Ends = tuple[Point, Point]


@dataclass(frozen=True)
class RecistAxes:
    """The two diameters of a lesion in one plane.

    Args:
        plane: The plane in which both axes lie.
        long: The ends of the longest diameter in mm, RAS+.
        short: The ends of the perpendicular diameter in mm, RAS+.
    """

    plane: Literal["axial", "coronal", "sagittal"]
    long: Ends
    short: Ends

    @property
    def long_mm(self) -> float:
        """The longest diameter in mm."""
        return math.dist(*self.long)

    @property
    def short_mm(self) -> float:
        """The perpendicular diameter in mm."""
        return math.dist(*self.short)
