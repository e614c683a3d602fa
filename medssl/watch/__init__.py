"""Predicts the studies that arrive in a folder, over DIMSE or in an archive, and sends the documents back."""
