"""Phantoms: synthetic scans with known labels, for tests, the demo and documentation."""
