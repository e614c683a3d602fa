"""Volumes in compressed blocks of axial planes, of which a reader decompresses only those that it needs."""
