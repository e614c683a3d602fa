"""Objectives that restore what a crop lacks: hidden patches, or corrupted voxels."""
