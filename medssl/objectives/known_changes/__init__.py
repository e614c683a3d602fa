"""Objectives that recognize a change of a crop that they have made themselves."""
