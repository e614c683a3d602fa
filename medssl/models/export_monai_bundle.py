"""Adds to a published run the files of a MONAI bundle: metadata, inference config and network weights.

The layout is MONAI's bundle specification, https://docs.monai.io/en/stable/mb_specification.html. The network expects
volumes prepared by medssl (RAS, one spacing, values in [0, 1]); MONAI's `run` therefore calls `medssl predict`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from medssl.errors import BadInput
from medssl.files import atomic_file, write_checksums, write_json, write_text
from medssl.models.trained_model import TrainedModel
from medssl.nn.interop import weight_transfer
from medssl.run import Run
from medssl.tasks.detect import Config as DetectConfig
from medssl.version import __version__

MONAI_VERSION = "1.6.1"  # the version of the specification followed here
METADATA_SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)


class BundledModel(nn.Module):
    """The network of a published run, as MONAI builds it from a bundle.

    Args:
        folder: The folder of the published run.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        run = Run.open(folder)
        self.task = TrainedModel.from_run(run).build_task()
        weight_transfer.load_parts(run.weights, self.task.transferable())
        self.eval()

    def forward(self, x: Float[Tensor, "b c i j k"]) -> Float[Tensor, "b n i j k"]:
        """Returns class probabilities of prepared crops, background first."""
        return self.task.probability(x)


def require_bundle_support(run: Run) -> None:
    """Raises BadInput if the network of a run gives no class probabilities."""
    task = TrainedModel.from_run(run).task
    if isinstance(task, DetectConfig) and task.head == "box":
        raise BadInput(
            f"{run.path}: this detector gives boxes only, a MONAI bundle needs class probabilities; leave out --monai"
        )


def add_bundle_files(folder: Path) -> None:
    """Adds configs/, models/ and docs/ to a published run, which remains a run."""
    network = TrainedModel.from_run(Run.open(folder))
    files = ("configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md")
    write_json(folder / files[0], _build_metadata(network))
    write_json(folder / files[1], _build_inference_config(network))
    with atomic_file(folder / files[2]) as part:
        torch.save(BundledModel(str(folder)).state_dict(), part)
    write_text(folder / files[3], (folder / "README.md").read_text(encoding="utf-8"))
    write_checksums(folder, files)


def _build_metadata(network: TrainedModel) -> Mapping[str, Any]:
    """Returns the content of metadata.json."""
    names = {0: "background"} | network.labels
    shared = {"type": "image", "dtype": "float32", "value_range": [0, 1], "is_patch_data": True}
    shared |= {"spatial_shape": list(network.patch_size)}
    image = {"format": "magnitude", "modality": "n/a", "num_channels": network.in_channels}
    image["channel_def"] = {str(n): f"channel {n}" for n in range(network.in_channels)}
    num_classes = max(names) + 1
    prediction = {"format": "segmentation", "num_channels": num_classes}
    prediction["channel_def"] = {str(n): names.get(n, "unused") for n in range(num_classes)}
    return {
        "schema": METADATA_SCHEMA, "version": "1.0.0", "changelog": {"1.0.0": "published by medssl"},
        "monai_version": MONAI_VERSION, "pytorch_version": torch.__version__, "numpy_version": np.__version__,
        "required_packages_version": {"medssl": __version__}, "task": "segmentation",
        "description": "Research use only; see docs/README.md.", "name": ", ".join(network.labels.values()),
        "authors": "see README.md", "copyright": "see README.md",
        "network_data_format": {"inputs": {"image": shared | image}, "outputs": {"pred": shared | prediction}},
    }  # fmt: skip


def _build_inference_config(network: TrainedModel) -> Mapping[str, Any]:
    """Returns the content of inference.json."""
    return {
        "imports": ["$import torch", "$from medssl import cli"],
        "bundle_root": ".",
        "scans": "scans",
        "output_dir": "predictions",
        "modality": "",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{BundledModel.__module__}.{BundledModel.__name__}", "folder": "@bundle_root"},
        "network": "$@network_def.to(@device)",
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(network.patch_size),
            "sw_batch_size": 2,
            "overlap": 0.5,
            "mode": "gaussian",
        },
        "run": ["$cli.run('predict', [@bundle_root, @scans, '--out', @output_dir, '--modality', @modality])"],
    }
