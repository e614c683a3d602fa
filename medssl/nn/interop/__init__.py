"""Weights of other projects: their names, MONAI bundles, and what is transferred tensor by tensor."""
