"""Predicting many cases with models of any format: what predicts a volume, and what the index states about it."""
