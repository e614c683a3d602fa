"""Prediction: sliding window, ensembles, test-time augmentation, detection and writing of predictions."""
