"""Pieces that several self-supervised objectives share."""
