"""Simulates scans of invented patients with known labels, for tests, the demo and documentation."""
