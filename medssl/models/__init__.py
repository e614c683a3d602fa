"""Trained models: load and pool runs, publish and import weights, calibrate, select cases to annotate."""
