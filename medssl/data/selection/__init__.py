"""Chooses cases: splits, folds, nested subsets of labelled cases, and groups."""
