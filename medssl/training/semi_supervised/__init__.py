"""Finetuning that also learns from unlabelled volumes: mean teacher and label propagation."""
