"""Metrics of predictions: overlap, surface distances, lesion detection, calibration and their confidence intervals."""
