"""Finds the folder that holds the scripts, the app and the configs."""

from pathlib import Path


def resources_dir() -> Path:
    """Returns the folder with pipelines/, app/, configs/ and data_cards/, in an installed package or in a checkout."""
    bundle = Path(__file__).parent / "bundle"
    return bundle if bundle.is_dir() else Path(__file__).parent.parent
