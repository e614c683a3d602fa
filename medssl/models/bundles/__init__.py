"""Whole networks of MONAI bundles, and the preprocessing that they expect."""
