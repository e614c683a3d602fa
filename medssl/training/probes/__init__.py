"""Probes of frozen features: simple classifiers that are fitted on the features of a few labelled volumes."""
