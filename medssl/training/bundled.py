"""Import path that MONAI bundles published by earlier versions name for their network; it must remain importable."""

from medssl.models.export_monai_bundle import BundledModel as Bundled

__all__ = ["Bundled"]
