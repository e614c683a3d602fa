"""Where the scripts, the app and the configs are."""

from pathlib import Path


def home() -> Path:
    """The folder that holds pipelines/, app/ and configs/: inside an installed package, or the checkout around it."""
    inside = Path(__file__).parent / "bundle"
    return inside if inside.is_dir() else Path(__file__).parent.parent
