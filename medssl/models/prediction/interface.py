"""What a trained network expects and predicts, whatever runs it."""

import math

from pydantic import Field

from medssl.data.class_kinds import propose_kinds
from medssl.data.normalization import IntensityNormalization
from medssl.errors import BadInput
from medssl.finding import FindingKind
from medssl.settings import Settings
from medssl.volume import Spacing, Unit, Volume


class ModelInterface(Settings):
    """The input and the classes of a trained network."""

    in_channels: int = Field(description="number of input channels")
    normalization: IntensityNormalization = Field(description="maps voxel values to network input in [0, 1]")
    spacing_mm: Spacing | None = Field(description="voxel spacing of the input along RAS; null keeps that of each scan")
    patch_size: tuple[int, int, int] = Field(description="size of the training crops in voxels")
    labels: dict[int, str] = Field(
        {}, description="class names by label value, without background; empty if pretrained"
    )
    kinds: dict[int, FindingKind] = Field(
        {}, description="kind of each class, organ or lesion; empty: proposed from the names"
    )
    units: tuple[Unit, ...] = Field((), description="voxel units of the training scans; empty if unknown")

    def list_kinds(self) -> dict[int, FindingKind]:
        """Returns the kind of each class: the declared one, else the one that its name suggests."""
        return propose_kinds(self.labels) | self.kinds

    def list_organs(self) -> frozenset[int]:
        """Returns the label values of organs."""
        return frozenset(value for value, kind in self.list_kinds().items() if kind == "organ")

    def prepare(self, volume: Volume) -> Volume:
        """Returns the network input for a scan: RAS orientation, the training spacing and values in [0, 1]."""
        self.require_fitting_scan(volume)
        return self.normalization.prepare_input(volume, self.spacing_mm)

    def require_fitting_scan(self, volume: Volume) -> None:
        """Raises BadInput if a scan has other channels or another kind of unit than the network was trained on."""
        channels = volume.voxels.size // math.prod(volume.shape)
        if channels != self.in_channels:
            raise BadInput(f"this scan has {channels} channels, the network needs {self.in_channels}")
        if self.units and ("HU" if volume.unit == "HU" else "a.u.") not in self.units:
            scan, training = ("a CT", "other scans") if volume.unit == "HU" else ("not a CT", "CTs")
            raise BadInput(
                f"this scan is {scan}, the network was trained on {training} only; state what it is with --modality"
            )
