"""Networks and losses for lesion detection: anchor boxes, the box head, losses for rare voxels."""
