"""Attention: pooling of a volume into one vector, and the attention between tokens of patches."""
