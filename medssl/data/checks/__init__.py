"""Checks of a store: leakage between splits, file integrity and the data card."""
