"""Proposes the mask of a finding from clicks of a reader, on a CPU and without weights from outside."""
