"""Transforms of crops: augmentation, intensity changes and corruptions."""
