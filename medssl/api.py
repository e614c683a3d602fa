"""The public functions of the package: the whole path from scans to predictions in a few calls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl import config
from medssl.data.ingest.config import IngestConfig
from medssl.data.ingest.pipeline import ingest as run_ingest
from medssl.data.manifest import Manifest
from medssl.errors import BadInput
from medssl.inference.calibration import Calibration
from medssl.inference.streaming.case_stream import Prediction
from medssl.io import images
from medssl.io.dicom import Series
from medssl.io.dicom import read as read_series
from medssl.io.rejected import RejectedFiles
from medssl.models.model_pool import load_predictor, require_same_inputs
from medssl.models.starting_point import adopt_network
from medssl.models.trained_model import TrainedModel, default_device, load_trained_encoder
from medssl.nn.encoder import Encoder
from medssl.run import Run
from medssl.training.finetune import finetune as run_finetune
from medssl.training.finetune_config import FinetuneConfig
from medssl.training.pretrain import PretrainConfig
from medssl.training.pretrain import pretrain as run_pretrain
from medssl.volume import Volume

Store = Manifest | Path | str
RunOrPath = Run | Path | str


class SeriesList(list[Series]):
    """The series of a folder.

    Attributes:
        rejected: The files that could not be used, each with its reason.
    """

    def __init__(self, series: Sequence[Series], rejected: Sequence[RejectedFiles]) -> None:
        super().__init__(series)
        self.rejected = list(rejected)


@dataclass(frozen=True)
class Model:
    """One finished finetuning, or several as an ensemble, ready to predict.

    Attributes:
        labels: Class names by label value, without background.
    """

    labels: dict[int, str]
    predictor: Callable[[Volume, str], Prediction]

    def predict(self, volume: Volume, case: str = "case") -> Prediction:
        """Predicts labels, foreground probability and findings of a scan, on the grid of the scan.

        Args:
            volume: A scan in HU (CT) or arbitrary units, with the channels of the training scans.
            case: The id that the findings get.
        """
        return self.predictor(volume, case)


@dataclass(frozen=True, eq=False)
class Encoding:
    """The features of a scan at every level of an encoder, fine to coarse.

    Each level is a `Volume` with the features as channels ("c i j k") and the affine of its own, coarser grid, so that
    its spacing and the position of each feature in mm are known.
    """

    levels: tuple[Volume, ...]

    def __iter__(self) -> Iterator[Volume]:
        return iter(self.levels)

    def __getitem__(self, level: int) -> Volume:
        return self.levels[level]

    def __len__(self) -> int:
        return len(self.levels)


def read_dicom(folder: Path | str, allow_gaps: bool = False) -> SeriesList:
    """Finds the DICOM series under a folder; `series[0].volume()` reads the voxels of one.

    Args:
        folder: A folder, searched with all folders below it and zip archives.
        allow_gaps: Whether missing slices are interpolated instead of rejecting the series.
    """
    items = list(read_series(Path(folder), allow_gaps))
    return SeriesList(
        [item for item in items if isinstance(item, Series)], [i for i in items if isinstance(i, RejectedFiles)]
    )


def read_image(path: Path | str, label: bool = False) -> Volume:
    """Reads a NIfTI, NRRD or MetaImage file.

    Args:
        path: The file.
        label: Whether the voxels are label values; they are checked to be whole numbers.
    """
    return images.read(Path(path), label)


def ingest(
    scans: Path | str, store: Path | str, on_progress: Callable[[int, int], None] | None = None, **options: Any
) -> Manifest:
    """Prepares all scans of a folder as a store for training.

    Args:
        scans: A folder of DICOM, NIfTI, NRRD or MetaImage files.
        store: The folder of the store; an existing store is extended.
        on_progress: Called with the number of prepared cases and of all cases.
        **options: The options of `medssl ingest`, for example `split_fractions={"train": 0.8, "test": 0.2}`.

    Returns:
        The manifest of the store: its cases with their patients and splits.
    """
    settings = config.check(options, IngestConfig, "ingest")
    return run_ingest(Path(scans), Path(store), settings, on_progress or (lambda done, total: None)).manifest


def pretrain(store: Store, run: Path | str, objective: str | dict[str, Any] = "spark", **settings: Any) -> Run:
    """Trains an encoder on the unlabelled volumes of a store.

    Args:
        store: A store, as `ingest` returns it, or its folder.
        run: The folder of the new run.
        objective: The name of an objective, or its settings: `{"name": "spark", "mask_ratio": 0.75}`.
        **settings: Keys of `medssl pretrain`; groups are dictionaries: `train={"epochs": 10}, patch_size=(64, 64, 64)`.
    """
    values = {"manifest": _manifest_path(store), "run": Path(run), "objective": objective, **settings}
    return run_pretrain(config.check(values, PretrainConfig, "pretrain"))


def finetune(
    store: Store, run: Path | str, pretrained: RunOrPath | None = None, num_labelled: int | None = None, **settings: Any
) -> Run:
    """Trains segmentation or detection on labelled volumes of a store.

    Args:
        store: A store, as `ingest` returns it, or its folder.
        run: The folder of the new run.
        pretrained: A finished pretraining to start from. Its encoder, and its patch size, are the defaults.
        num_labelled: The number of labelled volumes to train on; None takes all.
        **settings: Keys of `medssl finetune`; groups are dictionaries: `train={"epochs": 10}, task="detect"`.
    """
    values: dict[str, Any] = {"manifest": _manifest_path(store), "run": Path(run), "num_labelled": num_labelled}
    if pretrained is not None:
        values["pretrained"] = _open_run(pretrained).path
    return run_finetune(config.check(adopt_network(values | settings), FinetuneConfig, "finetune"))


def load_model(*runs: RunOrPath, tta: bool = False, device: str | None = None) -> Model:
    """Loads finished finetunings for prediction; several form an ensemble.

    Args:
        *runs: Runs or their folders, trained on the same kind of input and classes.
        tta: Whether predictions are averaged over mirrored views (test-time augmentation).
        device: The torch device; by default a GPU if there is one.
    """
    if not runs:
        raise BadInput("load_model needs at least one run, for example load_model('runs/b')")
    opened = [_open_run(run) for run in runs]
    labels = require_same_inputs(opened).labels
    return Model(labels, load_predictor(opened, tta, Calibration.load(opened), device or default_device()))


def load_encoder(run: RunOrPath, device: str | None = None) -> Callable[[Volume], Encoding]:
    """Loads the encoder of a finished run as a function from a scan to its features.

    The scan is prepared as in training (RAS orientation, spacing, normalization) and encoded whole, which takes memory
    in proportion to its size.

    Args:
        run: A pretraining or finetuning run, or its folder.
        device: The torch device; by default a GPU if there is one.
    """
    opened, place = _open_run(run), device or default_device()
    network, encoder = TrainedModel.from_run(opened), load_trained_encoder(opened, place)
    return lambda volume: _encode(encoder, network.prepare(volume), place)


def _encode(encoder: Encoder, prepared: Volume, device: str) -> Encoding:
    """Encodes a prepared volume, padded to a multiple of the total stride; the padding is cut off again."""
    shape = prepared.shape
    x = torch.from_numpy(np.ascontiguousarray(prepared.voxels, np.float32)).reshape(1, -1, *shape)
    padding = [(-size) % step for size, step in zip(shape, encoder.patch, strict=True)]
    x = torch.nn.functional.pad(x, [width for extra in reversed(padding) for width in (0, extra)])
    with torch.no_grad():
        pyramid = encoder(x.to(device))
    return Encoding(tuple(_to_volume(features, x.shape[2:], prepared) for features in pyramid))


def _to_volume(features: Tensor, padded: torch.Size, prepared: Volume) -> Volume:
    """Returns a feature map as a volume; a feature lies at the centre of the voxels it stands for."""
    strides = np.array([size // n for size, n in zip(padded, features.shape[2:], strict=True)])
    voxel_to_voxel = np.diag([*strides, 1.0])
    voxel_to_voxel[:3, 3] = (strides - 1) / 2
    i, j, k = (-(-size // int(step)) for size, step in zip(prepared.shape, strides, strict=True))
    voxels = features[0, :, :i, :j, :k].float().cpu().numpy()
    return replace(prepared, voxels=voxels, affine=prepared.affine @ voxel_to_voxel, unit="a.u.")


def _manifest_path(store: Store) -> Path:
    folder = store.folder if isinstance(store, Manifest) else Path(store)
    return folder if folder.suffix == ".csv" else folder / "manifest.csv"


def _open_run(run: RunOrPath) -> Run:
    return run if isinstance(run, Run) else Run.open(run)
