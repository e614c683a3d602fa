"""Retrieval: cases and places that are like a given one, from the dense features of a pretrained encoder."""
