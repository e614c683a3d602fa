"""Arrays of voxels: resampling, and storage on disk."""
