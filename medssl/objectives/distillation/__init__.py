"""Objectives that predict what a teacher, a moving average of the network, computes."""
