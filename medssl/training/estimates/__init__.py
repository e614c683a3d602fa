"""Estimates time and memory of a training before it starts, by a few timed steps."""
