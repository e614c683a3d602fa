"""Findings by runs of voxels: connected components, sizes, axes and location, of whole volumes or of blocks of them."""
