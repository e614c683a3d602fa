"""Finds where signed readings of a case differ, and lets a third person decide which of them counts."""
