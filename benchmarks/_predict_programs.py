"""The programs that `benchmarks.predict` compares: each reads a NIfTI file, predicts it, and writes its labels.

Nothing of medssl is imported with this module, so that an earlier version can be measured too.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from time import process_time
from typing import Any

import nibabel
import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

WORKING_MM, CROP, STRUCTURE = 3.0, (48, 48, 48), 8
LESION_MM = 1.5  # the working spacing of a detector


class Clock:
    """Adds up CPU seconds by stage: "read", "prepare", "tiles", "findings", "all"."""

    def __init__(self) -> None:
        self.seconds = Counter[str]()

    @contextmanager
    def count(self, stage: str) -> Iterator[None]:
        """Adds the CPU time of a block to a stage."""
        start = process_time()
        yield
        self.seconds[stage] += process_time() - start

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that adds its CPU time to a stage."""

        def call(*args: Any, **options: Any) -> Any:
            with self.count(stage):
                return function(*args, **options)

        return call

    def patch(self, stage: str, module: str, *path: str) -> None:
        """Adds the CPU time of a function or method of a module to a stage."""
        owner = import_module(module)
        for name in path[:-1]:
            owner = getattr(owner, name)
        setattr(owner, path[-1], self.wrap(stage, getattr(owner, path[-1])))


def make_network(num_classes: int) -> Callable[..., Any]:
    """Convolutions with random weights, of which each class takes its own range: compact structures in a background."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(*size, 3, 3, 3, generator=generator) * 0.2 for size in ((16, 1), (16, 16))]
    centres = torch.linspace(-1, 1, num_classes).view(1, -1, 1, 1, 1)

    def network(x: Any) -> Any:
        features = x
        for weight in weights:
            features = functional.conv3d(features, weight, padding=1).relu()
        level = functional.avg_pool3d(x + 0 * features[:, :1], STRUCTURE)
        level = functional.interpolate(level, size=x.shape[2:], mode="trilinear")
        return (-((level * 2 - 1 - centres) ** 2) * 40 * num_classes).softmax(1)

    return network


def predict(path: Path, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts a folder of scans as `medssl predict` does, with the findings and all files of a case."""
    normalization, read_source, torch_network, writer = (
        import_module(f"medssl.{name}")
        for name in (
            "data.normalization",
            "data.ingest.read_source",
            "inference.networks.torch_network",
            "inference.prediction_writer",
        )
    )
    clock.patch("findings", "medssl.inference.findings.collect", "ComponentCollector", "add")
    clock.patch("findings", "medssl.inference.streaming.case_stream", "build_findings")
    clock.patch("read", "medssl.data.ingest.read_source", "read_image")
    prepare = partial(normalization.IntensityNormalization().prepare_input, spacing_mm=(WORKING_MM,) * 3)
    names = {n: f"class {n}" for n in range(1, num_classes)}
    predictor = import_module("medssl.inference.predictor").Predictor(
        torch_network.TorchNetwork(network), clock.wrap("prepare", prepare), CROP, names, organs=frozenset(names)
    )
    with clock.count("read"):
        scans = read_source.list_scans(path.parent, "", "CT")
    model = {"run": "r", "weights_sha256": "0"}
    predictions = writer.PredictionWriter.create(folder / "out", names, model).predict_all(scans, predictor.stream)
    assert not predictions.index.failed, predictions.index.failed


def detect(
    path: Path, network: Any, num_classes: int, folder: Path, clock: Clock, mirrored: tuple[int, ...] = ()
) -> None:
    """Detects bright lesions in a folder of scans as `medssl predict` does, also in views mirrored along some axes.

    Its network costs next to nothing, so that the rest can be measured.
    """
    normalization, read_source, torch_network, detector, views, writer = (
        import_module(f"medssl.{name}")
        for name in (
            "data.normalization",
            "data.ingest.read_source",
            "inference.networks.torch_network",
            "inference.detector",
            "inference.test_time_augmentation",
            "inference.prediction_writer",
        )
    )

    def find_bright(x: Any) -> Any:
        lesion = torch.sigmoid((functional.avg_pool3d(x, 3, 1, 1) - 0.75) * 40)
        return torch.cat([1 - lesion, lesion], 1)

    prepare = partial(normalization.IntensityNormalization().prepare_input, spacing_mm=(LESION_MM,) * 3)
    predictor = detector.Detector(
        (torch_network.TorchNetwork(find_bright),), (), prepare, CROP, {1: "lesion"},
        views=(views.MirrorView(), *(views.MirrorView((axis,)) for axis in mirrored)),
    )  # fmt: skip
    scans = read_source.list_scans(path.parent, "", "CT")
    model = {"run": "r", "weights_sha256": "0"}
    predictions = writer.PredictionWriter.create(folder / "out", {1: "lesion"}, model).predict_all(
        scans, predictor.stream
    )
    assert not predictions.index.failed, predictions.index.failed


def detect_in_mirrored_views(path: Path, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Detects lesions in two views, whose disagreement is mapped too."""
    detect(path, network, num_classes, folder, clock, (0,))


def predict_with_earlier_version(path: Path, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts a scan with the version on the path, which keeps whole volumes in memory."""
    nifti, predictor, writer = (
        import_module(f"medssl.{name}") for name in ("io.nifti", "inference.predictor", "inference.prediction_writer")
    )
    predictor.extract_findings = clock.wrap("findings", predictor.extract_findings)

    def prepare(volume: Any) -> Any:
        ras = volume.reorient("RAS").resample((WORKING_MM,) * 3, order=1)
        return replace(ras, voxels=np.clip((ras.voxels.astype(np.float32) + 1000) / 2000, 0, 1), unit="a.u.")

    names = {n: f"class {n}" for n in range(1, num_classes)}
    with clock.count("read"):
        scan = replace(nifti.read(path), unit="HU")
    prediction = predictor.Predictor(network, clock.wrap("prepare", prepare), CROP, names)(scan, "a")
    writer.PredictionWriter.create(folder / "out", names, {"run": "r", "weights_sha256": "0"}).add(
        "a", scan, prediction
    )


def predict_with_monai(path: Path, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts with MONAI's inferer, inverts the preparation of the probabilities, and decides."""
    inferers, transforms = import_module("monai.inferers"), import_module("monai.transforms")
    with clock.count("read"):
        data = transforms.LoadImaged("image", ensure_channel_first=True)({"image": path})
    with clock.count("prepare"):
        steps = transforms.Compose(
            [
                transforms.Orientationd("image", axcodes="RAS", labels=None),
                transforms.Spacingd("image", (WORKING_MM,) * 3, mode="bilinear"),
                transforms.ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
            ]
        )
        affine = data["image"].affine.numpy().copy()
        data = steps(data)
    inferer = inferers.SlidingWindowInferer(CROP, 2, 0.5, mode="gaussian")
    with torch.no_grad():
        data["p"] = inferer(data["image"][None], network)[0]
    inverted = transforms.Invertd("p", steps, orig_keys="image", nearest_interp=False, to_tensor=True)(data)
    labels = inverted["p"].argmax(0).numpy().astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labels.nii.gz")


def predict_as_nnunet(path: Path, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts as nnU-Net, with the call of skimage's `resize` for each class."""
    scan, p = _predict_for_nnunet(path, network, clock)
    back = np.array(scan.shape) / p.shape[1:]
    resized = np.zeros((num_classes, *scan.shape), np.float32)
    for channel, voxels in zip(resized, p, strict=True):
        channel[:] = ndimage.zoom(voxels, back, order=1, mode="nearest", grid_mode=True)
    labels = resized.argmax(0).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, scan.affine), folder / "labels.nii.gz")


def predict_with_nnunet(path: Path, network: Any, num_classes: int, folder: Path, clock: Clock) -> None:
    """Predicts in the same way, with the export function of the package nnunetv2."""
    export = import_module("nnunetv2.inference.export_prediction")
    plans_handler = import_module("nnunetv2.utilities.plans_handling.plans_handler")
    scan, p = _predict_for_nnunet(path, network, clock)
    resampling = "resample_data_or_seg_to_shape"
    order = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "spacing": [WORKING_MM] * 3, "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": order, "architecture": {"network_class_name": "none", "arch_kwargs": {}},
    }  # fmt: skip
    plans = plans_handler.PlansManager(
        {
            "plans_name": "p", "dataset_name": "d", "configurations": {"c": configuration},
            "label_manager": "LabelManager", "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
        }
    )  # fmt: skip
    labels = {"background": 0} | {f"class {n}": n for n in range(1, num_classes)}
    properties = {
        "spacing": [float(mm) for mm in nibabel.affines.voxel_sizes(scan.affine)],
        "shape_before_cropping": scan.shape, "shape_after_cropping_and_before_resampling": scan.shape,
        "bbox_used_for_cropping": [[0, n] for n in scan.shape],
    }  # fmt: skip
    segmentation = export.convert_predicted_logits_to_segmentation_with_correct_shape(
        torch.from_numpy(p), plans, plans.get_configuration("c"), plans.get_label_manager({"labels": labels}),
        properties, num_threads_torch=1,
    )  # fmt: skip
    nibabel.save(nibabel.Nifti1Image(segmentation, scan.affine), folder / "labels.nii.gz")


def _predict_for_nnunet(path: Path, network: Any, clock: Clock) -> tuple[Any, Any]:
    """Returns the image and its class probabilities at the working spacing, from a cubic interpolation."""
    with clock.count("read"):
        scan = nibabel.load(path)
        voxels = np.asarray(scan.dataobj).astype(np.float32)
    with clock.count("prepare"):
        scale = np.array(nibabel.affines.voxel_sizes(scan.affine)) / WORKING_MM
        small = ndimage.zoom(voxels, scale, order=3, mode="nearest", grid_mode=True)
        x = np.clip((small + 1000) / 2000, 0, 1)[None]
    sliding_window, torch_network = (
        import_module(f"medssl.inference.{name}") for name in ("sliding_window", "networks.torch_network")
    )
    return scan, sliding_window.sliding_window_inference(x, torch_network.TorchNetwork(network), CROP, batch_size=2)
