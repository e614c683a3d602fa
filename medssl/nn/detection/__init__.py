"""Networks and losses for lesion detection: anchor boxes, the box head and voxel losses."""
