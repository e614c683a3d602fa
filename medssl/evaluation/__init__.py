"""Evaluation of predictions against reference labels: scores, comparisons, calibration fits, reports."""
