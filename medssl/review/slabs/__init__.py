"""The images and findings of a case in blocks of axial planes, so that no large volume is in memory as a whole."""
