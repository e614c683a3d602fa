"""Where the scripts, the app and the configs are."""

from pathlib import Path


def home() -> Path:
    """The folder with pipelines/, app/, configs/ and data_cards/: inside an installed package, or the checkout."""
    inside = Path(__file__).parent / "bundle"
    return inside if inside.is_dir() else Path(__file__).parent.parent
