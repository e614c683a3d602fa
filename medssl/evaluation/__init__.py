"""Evaluation of predictions: scores against reference labels, comparisons, calibration and reports."""
