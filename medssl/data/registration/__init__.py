"""Registers scans to an atlas and derives labels from it."""
