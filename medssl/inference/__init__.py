"""Prediction: sliding window, ensembles, detection, findings and the predictions folder."""
