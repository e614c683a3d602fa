"""Objectives that segment images they have composed themselves."""
